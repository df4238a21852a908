//! A small filesystem of its own, in a file: to be filled, and to have another kind beneath.

use crate::cmd;
use crate::place::Place;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The filesystem, mounted; the place that it is in takes it away.
pub struct Small {
    pub dir: PathBuf,
}

impl Small {
    /// `kind` is ext4, xfs (at least 300 MiB) or btrfs (at least 110). Owned by the user postgres.
    #[track_caller]
    pub fn new(place: &Place, name: &str, kind: &str, mib: u64) -> Small {
        let (dir, image) = (place.join(name), place.join(&format!("{name}.img")));
        fs::create_dir(&dir).expect("mkdir");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("make an image");
        Small::make(&image, &dir, kind);
        Small { dir }
    }

    /// An ext4 of `mib` whose image has room for `real_mib` only: writing beyond is EIO, as from a broken disk. The image
    /// stands in a tmpfs that is full then.
    #[track_caller]
    pub fn broken(place: &Place, name: &str, mib: u64, real_mib: u64) -> Small {
        let (dir, under) = (place.join(name), place.join(&format!("{name}.tmpfs")));
        fs::create_dir(&dir).and_then(|()| fs::create_dir(&under)).expect("mkdir");
        let size = format!("size={real_mib}m");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), &under, Some("tmpfs"), flags, Some(size.as_str())).expect("tmpfs");
        let image = under.join("image");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("make an image");
        Small::make(&image, &dir, "ext4");
        Small { dir }
    }

    #[track_caller]
    fn make(image: &Path, dir: &Path, kind: &str) {
        let program = format!("mkfs.{kind}");
        let quiet: &[&str] = match kind {
            // Without a reserve for root: the tests run as root, and what is free must be free for all.
            "ext4" => &["-q", "-m", "0", "-E", "nodiscard"],
            "xfs" => &["-q", "-K"],
            _ => &["-q", "-K"],
        };
        let mut make: Vec<&std::ffi::OsStr> = quiet.iter().map(std::ffi::OsStr::new).collect();
        make.push(image.as_os_str());
        cmd::call(&program, &make).ok();
        let at = dir.as_os_str();
        cmd::call("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), at]).ok();
        cmd::call("chown", &["postgres".as_ref(), at]).ok();
    }

    /// Takes all that is free but `left_mib`, with a file that is there to be removed.
    #[track_caller]
    pub fn fill(&self, left_mib: u64) -> PathBuf {
        let file = self.dir.join("filler");
        let space = nix::sys::statvfs::statvfs(&self.dir).expect("statvfs");
        let free = space.blocks_available() * space.fragment_size();
        let len = free.saturating_sub(left_mib << 20);
        cmd::call("fallocate", &["-l".as_ref(), len.to_string().as_ref(), file.as_os_str()]).ok();
        file
    }
}
