//! Whether there is room for what is about to be written.

use crate::status::bytes;
use std::path::Path;

/// Refuses what would not fit, or leave less than so many bytes free where it goes.
///
/// # Errors
/// One line: how much is needed, and how much there is.
pub fn has_room(target: &Path, needed: u64, left: u64) -> Result<(), String> {
    let there = target.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let space = nix::sys::statvfs::statvfs(there).map_err(|cause| format!("{}: {cause}", there.display()))?;
    let free = space.blocks_available() * space.fragment_size();
    if needed.saturating_add(left) <= free {
        return Ok(());
    }
    let kept = if left > 0 { format!(", of which {} stay free", bytes(left as f64)) } else { String::new() };
    let (target, needed, free) = (target.display(), bytes(needed as f64), bytes(free as f64));
    Err(format!("{target} would not fit: {needed} are needed and {free} are free there{kept}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_or_takes_what_is_to_stay_free_is_refused() {
        let dir = std::env::temp_dir();
        let target = dir.join("weft-not-there/deep/down");
        assert_eq!(has_room(&target, 1, 0), Ok(()));
        let told = has_room(&target, 1 << 50, 0).unwrap_err();
        assert!(
            told.contains("down would not fit: 1024.0 TiB are needed") && !told.contains("stay"),
            "{told}"
        );
        let told = has_room(&target, 1, 1 << 50).unwrap_err();
        assert!(told.contains("of which 1024.0 TiB stay free"), "{told}");
    }
}
