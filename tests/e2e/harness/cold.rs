//! Files as if nobody had read them.

use std::fs::{self, File};
use std::path::Path;

/// Has the kernel drop what it holds of files, and of all below directories.
pub fn forget(paths: &[&Path]) {
    for path in paths {
        if path.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                forget(&[&entry.path()]);
            }
        } else if path.is_file() {
            forget_file(path);
        }
    }
}

fn forget_file(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = file.sync_all();
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = nix::fcntl::posix_fadvise(&file, 0, 0, advice);
    }
}
