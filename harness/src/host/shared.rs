//! Shared data and shared queues. Envoy shares them between its worker threads; this host has one.

use std::collections::{BTreeMap, VecDeque};

use super::status::Status;

/// Values by key, each with a CAS number (compare and swap) that changes with every write.
#[derive(Debug, Default)]
pub(crate) struct SharedData {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
}

impl SharedData {
    pub(crate) fn read(&self, key: &[u8]) -> Result<(Vec<u8>, u32), Status> {
        self.values.get(key).cloned().ok_or(Status::NotFound)
    }

    /// Writes a value. With `cas` 0 it overwrites any value, else only the value with that number.
    pub(crate) fn write(&mut self, key: &[u8], value: Vec<u8>, cas: u32) -> Result<(), Status> {
        if let Some((_, current)) = self.values.get(key)
            && cas != 0
            && cas != *current
        {
            return Err(Status::CasMismatch);
        }
        // No value has the number 0, which stands for "any value".
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.values.insert(key.to_vec(), (value, self.last_cas));
        Ok(())
    }
}

/// Queues by name, numbered from 1 in the order of their registration.
#[derive(Debug, Default)]
pub(crate) struct SharedQueues {
    queues: Vec<(Vec<u8>, VecDeque<Vec<u8>>)>,
    /// Queues with items that `proxy_on_queue_ready` has not announced yet.
    pub(crate) ready: VecDeque<u32>,
}

impl SharedQueues {
    pub(crate) fn register(&mut self, name: &[u8]) -> u32 {
        self.resolve(name).unwrap_or_else(|| {
            self.queues.push((name.to_vec(), VecDeque::new()));
            self.queues.len() as u32
        })
    }

    pub(crate) fn resolve(&self, name: &[u8]) -> Option<u32> {
        self.queues.iter().position(|(queue, _)| queue == name).map(|index| index as u32 + 1)
    }

    pub(crate) fn enqueue(&mut self, id: u32, value: Vec<u8>) -> Result<(), Status> {
        self.queue(id)?.push_back(value);
        self.ready.push_back(id);
        Ok(())
    }

    pub(crate) fn dequeue(&mut self, id: u32) -> Result<Vec<u8>, Status> {
        self.queue(id)?.pop_front().ok_or(Status::Empty)
    }

    fn queue(&mut self, id: u32) -> Result<&mut VecDeque<Vec<u8>>, Status> {
        let index = (id as usize).checked_sub(1).ok_or(Status::NotFound)?;
        let (_, queue) = self.queues.get_mut(index).ok_or(Status::NotFound)?;
        Ok(queue)
    }
}
