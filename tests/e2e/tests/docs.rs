//! The documents' sessions are run as they stand.

use std::path::Path;
use weft_e2e::{mount, session};

fn follow(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    session::follow(&root.join(name), &mount::binary());
}

#[test]
fn the_examples_of_the_semantics_are_true() {
    follow("docs/SEMANTICS.md");
}
