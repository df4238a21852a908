//! What baking may spend: bytes that gather evenly, and lapse when nobody needs them.
//!
//! Invariant: never more is spent than has gathered.

/// Unspent bytes pile up for so long at most, unless something larger waits.
const PILE_SECS: f64 = 3_600.0;

/// So long it is worth to wait for what is worth most, while what is worth less could be had.
const SAVE_SECS: f64 = 600.0;

/// See the head of this file.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Purse {
    bytes: f64,
    bytes_per_sec: f64,
}

impl Purse {
    /// `secs` have passed at so many bytes a second. `largest`: what the largest thing that is wanted takes; the purse
    /// holds that, or it could never be had.
    pub fn gather(&mut self, secs: f64, bytes_per_sec: f64, largest: f64) {
        self.bytes_per_sec = bytes_per_sec;
        let most = (bytes_per_sec * PILE_SECS.max(secs)).max(largest);
        self.bytes = (self.bytes + secs * bytes_per_sec).min(most);
    }

    /// Bytes that may be spent now.
    pub fn bytes(&self) -> f64 {
        self.bytes
    }

    /// Whether it will hold so much in a while, if nothing is spent until then.
    pub fn can_save_for(&self, bytes: f64) -> bool {
        bytes <= self.bytes + self.bytes_per_sec * SAVE_SECS
    }

    pub fn spend(&mut self, bytes: f64) {
        self.bytes = (self.bytes - bytes).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_gather_up_to_an_hour_or_to_what_the_largest_takes() {
        let mut purse = Purse::default();
        purse.gather(60.0, 10.0, 0.0);
        assert_eq!(purse.bytes(), 600.0);
        purse.spend(500.0);
        assert_eq!(purse.bytes(), 100.0);
        (0..1_000).for_each(|_| purse.gather(60.0, 10.0, 0.0));
        assert_eq!(purse.bytes(), 36_000.0);
        (0..1_000).for_each(|_| purse.gather(60.0, 10.0, 50_000.0));
        assert_eq!(purse.bytes(), 50_000.0, "a large partition is saved up for");
        assert!(purse.can_save_for(56_000.0) && !purse.can_save_for(56_001.0));
    }
}
