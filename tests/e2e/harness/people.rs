//! Doing something as another user: in a thread, since on Linux credentials and umask belong to threads.

use std::io;
use std::thread;

/// Who does something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Person {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'static [u32],
    /// Root, but without CAP_FSETID.
    pub no_fsetid: bool,
}

/// Group that two of [`PEOPLE`] share.
pub const SHARED: u32 = 50_000;
/// Root, root without CAP_FSETID, and ordinary users.
pub const PEOPLE: [Person; 5] = [
    Person { uid: 0, gid: 0, groups: &[], no_fsetid: false },
    Person { uid: 0, gid: 0, groups: &[], no_fsetid: true },
    Person { uid: 50_001, gid: 50_001, groups: &[SHARED], no_fsetid: false },
    Person { uid: 50_002, gid: 50_002, groups: &[SHARED, 50_001], no_fsetid: false },
    Person { uid: 50_003, gid: 50_003, groups: &[], no_fsetid: false },
];

impl Person {
    /// Runs `act` as this person with a umask.
    ///
    /// # Errors
    /// Those of `act`.
    ///
    /// # Panics
    /// When the kernel does not let us be that person.
    pub fn does<T: Send>(self, umask: u32, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let done = scope.spawn(move || {
                self.become_it(umask);
                act()
            });
            done.join().expect("the thread of a person")
        })
    }

    /// By raw system calls: the C library would change every thread.
    fn become_it(self, umask: u32) {
        // SAFETY: plain numbers, and arrays that outlive the calls; only this thread is changed.
        unsafe {
            must(libc::unshare(libc::CLONE_FS).into(), "unshare");
            libc::umask(umask);
            let groups = self.groups;
            must(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), "setgroups");
            must(libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid), "setresgid");
            if self.no_fsetid {
                drop_fsetid();
            }
            must(libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid), "setresuid");
        }
    }
}

fn must(result: i64, what: &str) {
    assert!(result == 0, "{what}: {}", io::Error::last_os_error());
}

/// capset(2), form 3: effective, permitted, inheritable, for the lower and then the upper 32 capabilities.
///
/// # Safety
/// Changes the capabilities of the calling thread.
unsafe fn drop_fsetid() {
    const CAP_FSETID: u32 = 4;
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: header and data have the sizes that form 3 says.
    unsafe {
        must(libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()), "capget");
        data[0] &= !(1 << CAP_FSETID);
        must(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()), "capset");
    }
}
