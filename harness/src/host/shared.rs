//! Shared data and shared queues. Envoy shares them between its threads; this host has one.

use std::collections::{BTreeMap, VecDeque};

use super::guest::{Answer, Status};

/// Values by key, each with a number that changes with every write (compare and swap).
#[derive(Debug, Default)]
pub struct SharedData {
    values: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    last_cas: u32,
}

impl SharedData {
    pub fn read(&self, key: &[u8]) -> Answer<(Vec<u8>, u32)> {
        Ok(self.values.get(key).cloned().ok_or(Status::NotFound)?)
    }

    /// Writes a value; `cas` 0 writes whatever is there, any other only over that version.
    pub fn write(&mut self, key: &[u8], value: Vec<u8>, cas: u32) -> Answer {
        if let Some((_, current)) = self.values.get(key)
            && cas != 0
            && cas != *current
        {
            return Err(Status::CasMismatch.into());
        }
        // 0 means "whatever is there", so no version has it.
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.values.insert(key.to_vec(), (value, self.last_cas));
        Ok(())
    }
}

/// Queues by name, numbered from 1 as they were registered.
#[derive(Debug, Default)]
pub struct SharedQueues {
    queues: Vec<(Vec<u8>, VecDeque<Vec<u8>>)>,
    /// Queues that got something the root context has not been told of.
    pub ready: VecDeque<u32>,
}

impl SharedQueues {
    pub fn register(&mut self, name: &[u8]) -> u32 {
        self.resolve(name).unwrap_or_else(|| {
            self.queues.push((name.to_vec(), VecDeque::new()));
            self.queues.len() as u32
        })
    }

    pub fn resolve(&self, name: &[u8]) -> Option<u32> {
        self.queues.iter().position(|(queue, _)| queue == name).map(|index| index as u32 + 1)
    }

    pub fn enqueue(&mut self, id: u32, value: Vec<u8>) -> Answer {
        self.queue(id)?.push_back(value);
        self.ready.push_back(id);
        Ok(())
    }

    pub fn dequeue(&mut self, id: u32) -> Answer<Vec<u8>> {
        Ok(self.queue(id)?.pop_front().ok_or(Status::Empty)?)
    }

    fn queue(&mut self, id: u32) -> Answer<&mut VecDeque<Vec<u8>>> {
        let index = (id as usize).checked_sub(1).ok_or(Status::NotFound)?;
        let (_, queue) = self.queues.get_mut(index).ok_or(Status::NotFound)?;
        Ok(queue)
    }
}
