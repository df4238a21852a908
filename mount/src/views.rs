//! The views that the kernel knows, and the alias symlinks to them.
//!
//! - Each view name has its own slot, also where two instants fall on the same Seq: the kernel allows a directory
//!   one name only.
//! - A slot lives while the kernel holds lookups or handles of anything in it; only then is it given to another view,
//!   under a new generation.

use crate::inode::Slot;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use weft::past::when::Instant;
use weft::types::Seq;

/// What a view is called: its canonical name, or a tag, which may be another instant's later on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Called {
    At(Instant),
    Tag { name: Arc<str>, at: Seq },
}

impl Called {
    /// The instant that it stands for.
    pub fn instant(&self) -> Instant {
        match self {
            Called::At(instant) => *instant,
            Called::Tag { at, .. } => Instant::Seq(*at),
        }
    }

    /// The name in the root of the mount.
    pub fn name(&self) -> String {
        match self {
            Called::At(instant) => instant.view_name(),
            Called::Tag { name, .. } => format!("@tag={name}"),
        }
    }
}

/// An open view as found in the table.
pub struct Open<V> {
    pub slot: Slot,
    pub generation: u64,
    pub view: Arc<V>,
    pub called: Called,
}

impl<V> Clone for Open<V> {
    fn clone(&self) -> Open<V> {
        let (view, called) = (Arc::clone(&self.view), self.called.clone());
        Open { slot: self.slot, generation: self.generation, view, called }
    }
}

struct Entry<V> {
    open: Open<V>,
    /// Lookups of all its inodes, and open handles.
    held: u64,
}

struct Alias {
    target: Arc<str>,
    lookups: u64,
}

struct Inner<V> {
    slots: HashMap<Slot, Entry<V>>,
    names: HashMap<Called, Slot>,
    free: Vec<Slot>,
    next_slot: u32,
    next_generation: u64,
    aliases: HashMap<u64, Alias>,
    alias_numbers: HashMap<Arc<[u8]>, u64>,
    alias_names: HashMap<u64, Arc<[u8]>>,
    next_alias: u64,
}

/// All views that are in use.
pub struct Views<V>(Mutex<Inner<V>>);

impl<V> Views<V> {
    pub fn new() -> Views<V> {
        Views(Mutex::new(Inner {
            slots: HashMap::new(),
            names: HashMap::new(),
            free: Vec::new(),
            next_slot: 1,
            next_generation: 1,
            aliases: HashMap::new(),
            alias_numbers: HashMap::new(),
            alias_names: HashMap::new(),
            next_alias: 1,
        }))
    }

    /// The view of a slot; `None` when nothing holds it any more (a stale handle).
    pub fn get(&self, slot: Slot) -> Option<Open<V>> {
        self.0.lock().slots.get(&slot).map(|entry| entry.open.clone())
    }

    /// The view of a name if it is open already, holding it once more.
    pub fn enter(&self, called: &Called) -> Option<Open<V>> {
        self.0.lock().enter(called)
    }

    /// Adds a view, held once. If another thread was faster, that one's is taken. `None`: no slot is left.
    pub fn add(&self, called: Called, view: Arc<V>) -> Option<Open<V>> {
        let mut inner = self.0.lock();
        match inner.enter(&called) {
            Some(open) => Some(open),
            None => inner.add(called, view),
        }
    }

    /// What the views of these instants are called.
    pub fn called(&self, wanted: impl Fn(&V) -> bool) -> Vec<Called> {
        let inner = self.0.lock();
        let open = inner.slots.values().map(|entry| &entry.open).filter(|open| wanted(&open.view));
        open.map(|open| open.called.clone()).collect()
    }

    /// Counts one more lookup or handle in a slot.
    pub fn hold(&self, slot: Slot) {
        if let Some(entry) = self.0.lock().slots.get_mut(&slot) {
            entry.held += 1;
        }
    }

    /// Takes back `count` lookups or handles.
    pub fn release(&self, slot: Slot, count: u64) {
        let mut inner = self.0.lock();
        let Some(entry) = inner.slots.get_mut(&slot) else { return };
        entry.held = entry.held.saturating_sub(count);
        if entry.held == 0 {
            if let Some(entry) = inner.slots.remove(&slot) {
                inner.names.remove(&entry.open.called);
            }
            inner.free.push(slot);
        }
    }

    /// The number of the symlink for an alias name, looked up once more.
    pub fn alias(&self, name: &[u8], target: String) -> u64 {
        let mut inner = self.0.lock();
        let known = inner.alias_numbers.get(name).copied();
        let number = known.unwrap_or_else(|| inner.add_alias(name, target));
        if let Some(alias) = inner.aliases.get_mut(&number) {
            alias.lookups += 1;
        }
        number
    }

    /// Where an alias points.
    pub fn target(&self, number: u64) -> Option<Arc<str>> {
        self.0.lock().aliases.get(&number).map(|alias| Arc::clone(&alias.target))
    }

    /// Takes back lookups of an alias.
    pub fn forget_alias(&self, number: u64, count: u64) {
        let mut inner = self.0.lock();
        let Some(alias) = inner.aliases.get_mut(&number) else { return };
        alias.lookups = alias.lookups.saturating_sub(count);
        if alias.lookups == 0 {
            inner.aliases.remove(&number);
            if let Some(name) = inner.alias_names.remove(&number) {
                inner.alias_numbers.remove(&name);
            }
        }
    }
}

impl<V> Inner<V> {
    fn enter(&mut self, called: &Called) -> Option<Open<V>> {
        let slot = self.names.get(called)?;
        let entry = self.slots.get_mut(slot)?;
        entry.held += 1;
        Some(entry.open.clone())
    }

    fn add(&mut self, called: Called, view: Arc<V>) -> Option<Open<V>> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = Some(Slot(self.next_slot)).filter(|slot| *slot <= Slot::LAST)?;
                self.next_slot += 1;
                slot
            }
        };
        let open = Open { slot, generation: self.next_generation, view, called: called.clone() };
        self.next_generation += 1;
        self.slots.insert(slot, Entry { open: open.clone(), held: 1 });
        self.names.insert(called, slot);
        Some(open)
    }

    fn add_alias(&mut self, name: &[u8], target: String) -> u64 {
        let number = self.next_alias;
        self.next_alias += 1;
        let name: Arc<[u8]> = Arc::from(name);
        self.aliases.insert(number, Alias { target: Arc::from(target), lookups: 0 });
        self.alias_numbers.insert(Arc::clone(&name), number);
        self.alias_names.insert(number, name);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Called {
        Called::At(Instant::Seq(Seq(seq)))
    }

    #[test]
    fn a_slot_is_reused_only_when_nothing_holds_it_and_under_a_new_generation() {
        let views = Views::new();
        let first = views.add(at(1), Arc::new("one")).unwrap();
        views.hold(first.slot);
        assert_eq!(views.enter(&at(1)).unwrap().slot, first.slot);
        views.release(first.slot, 2);
        assert!(views.get(first.slot).is_some());
        let second = views.add(at(2), Arc::new("two")).unwrap();
        assert_ne!(second.slot, first.slot);
        views.release(first.slot, 1);
        assert!(views.get(first.slot).is_none() && views.enter(&at(1)).is_none());
        let third = views.add(at(3), Arc::new("three")).unwrap();
        assert_eq!(third.slot, first.slot);
        assert_ne!(third.generation, first.generation);
    }

    #[test]
    fn the_faster_of_two_openers_wins() {
        let views = Views::new();
        let first = views.add(at(1), Arc::new("mine")).unwrap();
        let second = views.add(at(1), Arc::new("theirs")).unwrap();
        assert_eq!((second.slot, *second.view), (first.slot, "mine"));
        views.release(first.slot, 2);
        assert!(views.get(first.slot).is_none());
    }

    #[test]
    fn a_tag_that_was_given_again_is_another_view() {
        let views = Views::new();
        let tag = |at| Called::Tag { name: "t".into(), at: Seq(at) };
        let first = views.add(tag(1), Arc::new("one")).unwrap();
        let second = views.add(tag(2), Arc::new("two")).unwrap();
        let plain = views.add(at(1), Arc::new("plain")).unwrap();
        assert!(first.slot != second.slot && first.slot != plain.slot);
        assert_eq!((first.called.name(), first.called.instant()), ("@tag=t".into(), plain.called.instant()));
    }

    #[test]
    fn aliases_live_while_looked_up() {
        let views: Views<()> = Views::new();
        let number = views.alias(b"@seq=07", "@seq=7".into());
        assert_eq!(views.alias(b"@seq=07", "@seq=7".into()), number);
        views.forget_alias(number, 1);
        assert_eq!(views.target(number).as_deref(), Some("@seq=7"));
        views.forget_alias(number, 1);
        assert!(views.target(number).is_none());
        assert_ne!(views.alias(b"@seq=07", "@seq=7".into()), number);
    }
}
