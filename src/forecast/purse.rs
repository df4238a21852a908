//! What baking may spend: bytes that gather evenly, and lapse when nobody needs them.
//!
//! Invariant: never more is spent than has gathered.

/// Unspent bytes pile up for so long at most, unless something larger waits.
const PILE_SECS: f64 = 3_600.0;
/// A step of the price.
const DEARER: f64 = 1.25;
/// It stays within this, both ways.
const SCARCITY_MOST: f64 = 1_000.0;

/// See the head of this file.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Purse {
    bytes: f64,
    most: f64,
    scarcity: f64,
}

impl Default for Purse {
    fn default() -> Purse {
        Purse { bytes: 0.0, most: 0.0, scarcity: 1.0 }
    }
}

impl Purse {
    /// `secs` have passed at so many bytes a second. `largest`: what the largest thing that is wanted takes; the purse
    /// holds that, or it could never be had.
    pub fn gather(&mut self, secs: f64, bytes_per_sec: f64, largest: f64) {
        self.most = (bytes_per_sec * PILE_SECS.max(secs)).max(largest);
        self.bytes = (self.bytes + secs * bytes_per_sec).min(self.most);
    }

    /// Bytes that may be spent now.
    pub fn bytes(&self) -> f64 {
        self.bytes
    }

    /// How dear bytes are: what baking costs counts so many times. Above one more is wanted than gathers, and what is
    /// spent now is missing later for something better; below one bytes lapse for want of use.
    pub fn scarcity(&self) -> f64 {
        self.scarcity
    }

    /// As many bytes were wanted by what was worth its cost. Prices follow demand, slowly.
    pub fn note_wanted(&mut self, bytes: f64) {
        let e = |n: &str, d: f64| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
        let factor = if bytes > self.bytes { e("UP", 1.25) } else { 1.0 / e("DOWN", 1.25) };
        self.scarcity = (self.scarcity * factor).clamp(1.0 / SCARCITY_MOST, e("CAP", 1.0));
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
    }

    #[test]
    fn bytes_get_dear_when_more_is_wanted_than_there_is_and_cheap_when_they_lapse() {
        let mut purse = Purse::default();
        purse.gather(60.0, 10.0, 0.0);
        purse.note_wanted(601.0);
        assert_eq!(purse.scarcity(), 1.25);
        purse.note_wanted(600.0);
        assert_eq!(purse.scarcity(), 1.25, "what there is was enough, and nothing is left over");
        (0..100).for_each(|_| purse.gather(3_600.0, 10.0, 0.0));
        (0..100).for_each(|_| purse.note_wanted(0.0));
        assert_eq!(purse.scarcity(), 1e-3);
    }
}
