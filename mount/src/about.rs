//! What the root of a view tells of itself, as extended attributes.
//!
//! They are answered by name and not listed: `rsync -X` and `cp -a` copy what is listed, and a copy that claims to be an
//! instant is wrong with its first change. On the live root the names are refused, so they can mean nothing else.

use crate::handlers::{Answer, WeftFs};
use crate::views::Open;
use weft::engine::{Found, Resolution, View};
use weft::past::when::canonical;

const PREFIX: &[u8] = b"user.weft.";

impl WeftFs {
    /// An attribute that a view has by being one; `None` for other names.
    pub fn about(&self, open: &Open<View>, name: &[u8]) -> Answer<Option<Vec<u8>>> {
        let Some(what) = name.strip_prefix(PREFIX) else { return Ok(None) };
        let text = match what {
            b"seq" => Some(open.view.seq().to_string()),
            b"requested" => Some(open.called.name().trim_start_matches('@').to_owned()),
            b"actual" => self.resolution(open)?.map(|found| canonical(found.actual)),
            b"consistency" => self.origin(open)?.map(|origin| origin.capture.name().to_owned()),
            b"session" => self.origin(open)?.map(|origin| canonical(origin.session.1)),
            b"store-id" => Some(self.core.store_id().to_string()),
            _ => None,
        };
        Ok(text.map(String::into_bytes))
    }

    fn resolution(&self, open: &Open<View>) -> Answer<Option<Found>> {
        match self.told(self.core.try_resolve(open.called.instant()))? {
            Resolution::Found(found) => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    fn origin(&self, open: &Open<View>) -> Answer<Option<weft::engine::Origin>> {
        self.told(self.core.origin(open.view.seq()))
    }
}
