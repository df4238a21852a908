//! The image that a power cut leaves.

use super::rng::Rng;
use super::world::{Body, Entries, Meta, Node, NodeId, ROOT, World};
use crate::types::{FileKind, Name};
use std::collections::BTreeMap;

type Dirs = BTreeMap<NodeId, BTreeMap<Name, NodeId>>;

/// A world as it may be found after the power went: all of it seen, all of it durable.
pub(super) fn image(world: &World, seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let dirs = surviving_names(world, &mut rng);
    let links = reachable(&dirs);
    let mut image = world.image(Rng::new(rng.next()));
    for (&id, &count) in &links {
        if let Some(node) = world.nodes.get(&id) {
            let node = surviving_node(node, &mut rng, dirs.get(&id), world);
            image.restore(id, node, count);
        }
    }
    image.free_unused_inos();
    image
}

/// Durable names, and the pending changes that made it.
fn surviving_names(world: &World, rng: &mut Rng) -> Dirs {
    let mut dirs: Dirs = world
        .nodes
        .iter()
        .filter_map(|(&id, node)| match &node.body {
            Body::Dir(entries) => Some((id, entries.durable.clone())),
            _ => None,
        })
        .collect();
    let bias = rng.bias();
    // Mostly a subset; sometimes all up to a moment, as a filesystem with an ordered journal leaves it.
    let mut left = rng.one_in(4).then(|| rng.below(64));
    let kept = world.changes.survivors(|| match &mut left {
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
        None => rng.biased(bias),
    });
    for entry in kept.iter().flat_map(|change| &change.entries) {
        if let Some(names) = dirs.get_mut(&entry.dir) {
            match entry.after {
                Some(node) => names.insert(entry.name.clone(), node),
                None => names.remove(&entry.name),
            };
        }
    }
    dirs
}

/// What a walk from the root finds, and by how many names.
fn reachable(dirs: &Dirs) -> BTreeMap<NodeId, u32> {
    let mut links = BTreeMap::from([(ROOT, 1)]);
    let mut todo = vec![ROOT];
    while let Some(dir) = todo.pop() {
        for &node in dirs.get(&dir).into_iter().flat_map(BTreeMap::values) {
            let count = links.entry(node).or_insert(0);
            *count += 1;
            if *count == 1 && dirs.contains_key(&node) {
                todo.push(node);
            }
        }
    }
    links
}

fn surviving_node(
    node: &Node,
    rng: &mut Rng,
    names: Option<&BTreeMap<Name, NodeId>>,
    world: &World,
) -> Node {
    let mut node = node.clone();
    if node.meta_pending {
        node.meta = surviving_meta(&node, rng);
    }
    match &mut node.body {
        Body::File(content) => *content = content.after_cut(rng),
        Body::Dir(entries) => {
            let now = names.cloned().unwrap_or_default();
            node.subdirs = count_dirs(&now, world);
            *entries = Entries {
                durable: now.clone(),
                now,
            };
        }
        Body::Link(_) | Body::Other => {}
    }
    node
}

fn count_dirs(names: &BTreeMap<Name, NodeId>, world: &World) -> u32 {
    let is_dir = |id: &&NodeId| {
        let node = world.nodes.get(id);
        node.is_some_and(|node| node.kind == FileKind::Directory)
    };
    u32::try_from(names.values().filter(is_dir).count()).unwrap_or(u32::MAX)
}

/// The inode's fields survive together, each extended attribute by itself.
fn surviving_meta(node: &Node, rng: &mut Rng) -> Meta {
    let (new, old) = (&node.meta, &node.durable_meta);
    let mut meta = if rng.one_in(2) { new } else { old }.clone();
    meta.xattrs.clear();
    let mut names: Vec<&Name> = old.xattrs.keys().chain(new.xattrs.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let side = if rng.one_in(2) { new } else { old };
        if let Some(value) = side.xattrs.get(name) {
            meta.xattrs.insert(name.clone(), value.clone());
        }
    }
    meta
}
