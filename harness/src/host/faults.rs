//! Hostcalls that fail although nothing is wrong, for tests of what a module makes of it.

use super::state::Random;

/// Which hostcalls fail, and how. A call that fails does nothing else.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// How many of a thousand calls fail.
    pub per_mille: u32,
    /// Names of the hostcalls that fail; none stands for all.
    pub only: Vec<String>,
    /// What they answer; one after the other, as chance has it.
    pub statuses: Vec<u32>,
    random: Random,
}

impl Faults {
    /// Statuses other than OK that the ABI has, and one that it has not.
    pub const STATUSES: [u32; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 99];

    /// Lets so many of a thousand hostcalls fail, by chance of this seed.
    pub fn random(per_mille: u32, seed: u64) -> Self {
        let statuses = Self::STATUSES.to_vec();
        Self { per_mille, only: Vec::new(), statuses, random: Random::new(seed) }
    }

    /// Lets every call of one hostcall fail with one status.
    pub fn always(hostcall: &str, status: u32) -> Self {
        let (only, statuses) = (vec![hostcall.to_owned()], vec![status]);
        Self { per_mille: 1_000, only, statuses, random: Random::default() }
    }

    /// Says whether this call fails, and with which status.
    pub(super) fn next(&mut self, hostcall: &str) -> Option<u32> {
        if self.per_mille == 0
            || !(self.only.is_empty() || self.only.iter().any(|it| it == hostcall))
        {
            return None;
        }
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        let [a, b, c, d, e, f, g, h] = bytes;
        let (chance, choice) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let fails = (u64::from(chance) * 1_000) >> 32 < u64::from(self.per_mille);
        fails.then(|| self.statuses[choice as usize % self.statuses.len()])
    }
}
