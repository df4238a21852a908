//! From an identity to a path: the way back, which names are not kept for.

use super::Live;
use super::tree::Tree;
use crate::error::Result;
use crate::types::{FileId, Name};
use std::collections::{BTreeSet, HashMap};

impl Live {
    /// A path, relative to its root, of each of these files that has a name. One pass over all names.
    pub fn paths_of(&self, files: &[FileId]) -> Result<Vec<(FileId, Vec<u8>)>> {
        let wanted: BTreeSet<FileId> = files.iter().copied().collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let tree = self.tree.read();
        // Every directory's own name, and one name of each file that is wanted.
        let mut above: HashMap<FileId, (FileId, &Name)> = HashMap::new();
        for (dir, content) in &tree.dirs {
            for (name, file) in &content.entries {
                if wanted.contains(file) || tree.dirs.contains_key(file) {
                    above.insert(*file, (*dir, name));
                }
            }
        }
        let path = |file: &FileId| path(&tree, &above, *file).map(|path| (*file, path));
        Ok(wanted.iter().filter_map(path).collect())
    }
}

fn path(tree: &Tree, above: &HashMap<FileId, (FileId, &Name)>, file: FileId) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    let mut at = file;
    // A root holds itself, so it stands in no directory.
    while let Some((dir, name)) = above.get(&at) {
        names.push(name.as_slice());
        at = *dir;
    }
    let is_root = tree.dirs.get(&at).is_some_and(|dir| dir.parent == at);
    names.reverse();
    (is_root && at != file).then(|| names.join(&b'/'))
}
