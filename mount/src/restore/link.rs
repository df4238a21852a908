//! Where restored symlinks lead: never into a live directory, and not into a view that will be gone.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What stands before the target of a link to what no root covered.
const NOT_COVERED: &[u8] = b"/nonexistent/weft-not-covered";

/// From the views of the roots to where each is restored to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Relocate {
    /// A root's view at the instant, and its target.
    pub roots: Vec<(PathBuf, PathBuf)>,
}

impl Relocate {
    /// What a link that shows `text` in the view says in the copy.
    ///
    /// # Errors
    /// One line: it leads to what has no history.
    pub fn link(&self, link: &Path, text: &Path) -> crate::Outcome<PathBuf> {
        if text.as_os_str().as_bytes().starts_with(NOT_COVERED) {
            let lost = text.as_os_str().as_bytes().get(NOT_COVERED.len()..).unwrap_or(&[]);
            return Err(format!(
                "{} led to {}, which no root covered: it has no history, and a copy without it would be no database; \
                 restore the parts that have one with --partition, or leave it out with --except",
                link.display(),
                PathBuf::from(OsString::from_vec(lost.to_vec())).display()
            ));
        }
        for (view, target) in &self.roots {
            if let Ok(rest) = text.strip_prefix(view) {
                return Ok(if rest.as_os_str().is_empty() { target.clone() } else { target.join(rest) });
            }
        }
        Ok(text.to_path_buf())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_views_lead_to_the_copies() {
        let views = [("/wal/@seq=7", "/new.wal"), ("/data/@seq=7", "/new")];
        let relocate = Relocate { roots: views.iter().map(|(view, to)| (view.into(), to.into())).collect() };
        let link = |text: &str| relocate.link(Path::new("pg_wal"), Path::new(text));
        assert_eq!(link("/wal/@seq=7"), Ok("/new.wal".into()));
        assert_eq!(link("/wal/@seq=7/pg"), Ok("/new.wal/pg".into()));
        assert_eq!(link("../x"), Ok("../x".into()));
        assert_eq!(link("/etc/ssl/key.pem"), Ok("/etc/ssl/key.pem".into()));
        assert!(link("/nonexistent/weft-not-covered/mnt/ts").unwrap_err().contains("/mnt/ts"));
    }
}
