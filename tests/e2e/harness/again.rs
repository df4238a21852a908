//! Other processes: the test executable run again, on one of its ignored tests.

use std::process::{Child, Command, Stdio};

/// Says to a child what it is for; an ignored test that finds nothing here has nothing to do.
const ROLE: &str = "WEFT_E2E_ROLE";

/// Runs this executable's ignored test `name` in a process of its own, with a role.
///
/// # Panics
/// When it cannot be started.
pub fn child(name: &str, role: &[&str]) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", name])
        .env(ROLE, role.join("\n"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test executable again")
}

/// In a child: its role.
pub fn role() -> Option<Vec<String>> {
    std::env::var(ROLE).ok().map(|role| role.split('\n').map(str::to_owned).collect())
}
