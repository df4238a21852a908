//! Events of the journal as people and programs read them.

use crate::shown;
use serde_json::{Map, Value, json};
use weft::format::event::{Birth, Event, Record, RootStage, Slot};
use weft::past::when::canonical;
use weft::types::{Attr, FileId, FileTime, Name};

/// The name of an event's kind.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::Session { .. } => "session",
        Event::Create(..) => "create",
        Event::Adopt { .. } => "adopt",
        Event::Rebase { .. } => "rebase",
        Event::Link { .. } => "link",
        Event::Unlink { .. } => "unlink",
        Event::Rename { .. } => "rename",
        Event::Exchange { .. } => "exchange",
        Event::Write { .. } => "write",
        Event::Resize { .. } => "resize",
        Event::Zero { .. } => "zero",
        Event::SetAttr { .. } => "setattr",
        Event::SetXattr { .. } => "setxattr",
        Event::RemoveXattr { .. } => "removexattr",
        Event::Sync => "sync",
        Event::Tag { .. } => "tag",
        Event::Lease { .. } => "lease",
        Event::Close { .. } => "close",
        Event::Epoch { .. } => "epoch",
        Event::Root { .. } => "root",
        Event::Pin { .. } => "pin",
        Event::Thin { .. } => "thin",
        Event::Excluded { event, .. } => kind(event),
        Event::Capture { .. } => "capture",
        Event::Release { .. } => "release",
        Event::Mark { .. } => "mark",
    }
}

/// The files that an event is about: the first is the one whose bytes or attributes it tells.
pub fn files(event: &Event) -> Vec<FileId> {
    match event.unwrapped().0 {
        Event::Create(birth, _) | Event::Adopt { birth, .. } => vec![birth.file],
        Event::Rebase { file, .. }
        | Event::Link { file, .. }
        | Event::Unlink { file, .. }
        | Event::Write { file, .. }
        | Event::Resize { file, .. }
        | Event::Zero { file, .. }
        | Event::SetAttr { file, .. }
        | Event::SetXattr { file, .. }
        | Event::RemoveXattr { file, .. }
        | Event::Capture { file, .. }
        | Event::Release { file }
        | Event::Mark { file, .. }
        | Event::Root { file, .. } => vec![*file],
        Event::Rename { file, replaced, .. } => {
            std::iter::once(*file).chain(replaced.as_ref().map(|(old, _)| *old)).collect()
        }
        Event::Exchange { left, right, .. } => vec![*left, *right],
        _ => Vec::new(),
    }
}

/// Bytes that a write brought.
pub fn written(event: &Event) -> u64 {
    match event {
        Event::Write { len, .. } => u64::from(*len),
        _ => 0,
    }
}

/// A record, whole: `seq`, `time`, `wall`, `kind`, and the fields of the kind.
pub fn json(record: &Record) -> Value {
    let mut all = Map::new();
    all.insert("seq".into(), record.seq.0.into());
    all.insert("time".into(), canonical(record.ts).into());
    all.insert("wall".into(), canonical(record.wall).into());
    all.insert("kind".into(), kind(&record.event).into());
    if let Value::Object(fields) = fields(&record.event) {
        all.extend(fields);
    }
    Value::Object(all)
}

/// A record on one line: the same, without the quotes.
pub fn line(record: &Record) -> String {
    let mut line = format!("{} {} {:<11}", record.seq, canonical(record.ts), kind(&record.event));
    if record.wall != record.ts {
        line.push_str(&format!(" wall={}", canonical(record.wall)));
    }
    if let Value::Object(fields) = fields(&record.event) {
        let (file, rest): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(key, _)| key == "file");
        for (key, value) in file.into_iter().chain(rest) {
            match value {
                Value::Null => {}
                Value::String(text) => line.push_str(&format!(" {key}={text:?}")),
                Value::Object(attr) => line.push_str(&short(&attr)),
                other => line.push_str(&format!(" {key}={other}")),
            }
        }
    }
    line.trim_end().to_owned()
}

/// An attribute without its times.
fn short(attr: &Map<String, Value>) -> String {
    let keys = ["kind", "mode", "uid", "gid", "nlink", "size"];
    let of = |key| attr.get(key).map(|value| format!(" {key}={value}").replace('"', ""));
    keys.iter().filter_map(|key| of(*key)).collect()
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn slot(slot: &Slot) -> Value {
    json!(format!("f{}/{}", slot.dir.0, name(&slot.name)))
}

fn time(time: FileTime) -> String {
    format!("{}.{:09}", time.secs, time.nanos)
}

fn attr(attr: &Attr) -> Value {
    json!({
        "kind": shown::kind(attr.kind),
        "mode": format!("{:04o}", attr.mode),
        "uid": attr.uid,
        "gid": attr.gid,
        "rdev": attr.rdev,
        "nlink": attr.nlink,
        "size": attr.size,
        "atime": time(attr.atime),
        "mtime": time(attr.mtime),
        "ctime": time(attr.ctime),
    })
}

fn birth(birth: &Birth) -> Value {
    let mut fields = json!({ "file": birth.file.0, "root": birth.root.0, "attr": attr(&birth.attr) });
    if let Some(at) = &birth.slot {
        fields["at"] = slot(at);
    }
    if !birth.target.is_empty() {
        fields["target"] = json!(name(&birth.target));
    }
    fields
}

/// Names of extended attributes with the length of their values, or null for one that goes.
fn put_xattrs<'a>(fields: &mut Value, xattrs: impl Iterator<Item = (&'a Name, Option<&'a Vec<u8>>)>) {
    let lens: Map<String, Value> =
        xattrs.map(|(key, value)| (name(key), json!(value.map(Vec::len)))).collect();
    if !lens.is_empty() {
        fields["xattrs"] = Value::Object(lens);
    }
}

fn fields(event: &Event) -> Value {
    match event {
        Event::Session { writeback } => json!({ "capture": if *writeback { "writeback" } else { "strict" } }),
        Event::Create(born, xattrs) => {
            let mut fields = birth(born);
            put_xattrs(&mut fields, xattrs.iter().map(|(key, value)| (key, Some(value))));
            fields
        }
        Event::Adopt { birth: born, inode } => {
            let mut fields = birth(born);
            fields["inode"] = json!(inode);
            fields
        }
        Event::Rebase { file, attr: now, inode } => {
            json!({ "file": file.0, "inode": inode, "attr": attr(now) })
        }
        Event::Link { file, slot: at, attr: now } => {
            json!({ "file": file.0, "at": slot(at), "attr": attr(now) })
        }
        Event::Unlink { file, slot: at, attr: now, dir_nlink } => {
            json!({ "file": file.0, "at": slot(at), "attr": attr(now), "dir_nlink": dir_nlink })
        }
        Event::Rename { file, from, to, attr: now, replaced, .. } => {
            let replaced = replaced.as_ref().map(|(old, _)| old.0);
            json!({ "file": file.0, "from": slot(from), "to": slot(to), "replaced": replaced, "attr": attr(now) })
        }
        Event::Exchange { left, left_slot, right, right_slot, .. } => json!({
            "file": left.0, "from": slot(left_slot), "with": right.0, "to": slot(right_slot),
        }),
        Event::Write { file, offset, len, size, payload } => json!({
            "file": file.0, "offset": offset, "len": len, "size": size, "crc": format!("{:08x}", payload.crc),
        }),
        Event::Resize { file, old_size, size } => {
            json!({ "file": file.0, "old_size": old_size, "size": size })
        }
        Event::Zero { file, offset, len, size } => {
            json!({ "file": file.0, "offset": offset, "len": len, "size": size })
        }
        Event::SetAttr { file, attr: now, explicit_mtime, xattrs } => {
            let mut fields = json!({ "file": file.0, "chosen_mtime": explicit_mtime, "attr": attr(now) });
            put_xattrs(&mut fields, xattrs.iter().map(|(key, value)| (key, value.as_ref())));
            fields
        }
        Event::SetXattr { file, name: key, value, .. } => {
            json!({ "file": file.0, "name": name(key), "len": value.len() })
        }
        Event::RemoveXattr { file, name: key, .. } => json!({ "file": file.0, "name": name(key) }),
        Event::Sync => json!({}),
        Event::Tag { name: tag, at, remove } => {
            json!({ "name": name(tag), "at": at.0, "remove": remove })
        }
        Event::Lease { id, at, until, by } => json!({
            "id": id,
            "at": at.0,
            "until": canonical(*until),
            "by": String::from_utf8_lossy(by),
        }),
        Event::Close { at } => json!({ "at": canonical(*at) }),
        Event::Thin { upto, kept, gone } => json!({ "upto": upto.0, "kept": kept.len(), "gone": gone.len() }),
        Event::Pin { at, seq, kept } => json!({ "at": canonical(*at), "means": seq.0, "kept": kept }),
        Event::Epoch { epoch, wall } => json!({ "epoch": epoch, "to": canonical(*wall) }),
        Event::Root { root, file, name: called, stage } => {
            let stage = match stage {
                RootStage::Entering => "entering",
                RootStage::Present => "present",
                RootStage::Left => "left",
            };
            json!({ "file": file.0, "root": root.0, "name": name(called), "stage": stage })
        }
        Event::Excluded { names, event } => {
            let mut fields = fields(event);
            fields["excluded"] = json!(match (names.first, names.second) {
                (true, true) => "both",
                (true, false) => "first",
                (false, _) => "second",
            });
            fields
        }
        Event::Capture { file, attr: now } => json!({ "file": file.0, "attr": attr(now) }),
        Event::Release { file } => json!({ "file": file.0 }),
        Event::Mark { file, slot: at, attr: now, excluded, .. } => {
            json!({ "file": file.0, "at": slot(at), "excluded": excluded, "attr": attr(now) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft::format::event::Payload;
    use weft::types::{Seq, Timestamp};

    #[test]
    fn a_record_is_one_line_and_one_object() {
        let payload = Payload { offset: 64, crc: 0xabc };
        let event = Event::Write { file: FileId(7), offset: 8_192, len: 100, size: 8_292, payload };
        let record = Record { seq: Seq(5), ts: Timestamp(1_000_000), wall: Timestamp(999_999), event };
        let line = line(&record);
        assert!(line.starts_with("5 1970-01-01T00:00:01.000000Z write"), "{line}");
        assert!(line.contains("wall=1970-01-01T00:00:00.999999Z") && line.contains("len=100"), "{line}");
        let json = json(&record);
        assert_eq!(
            (&json["crc"], &json["file"], &json["kind"]),
            (&"00000abc".into(), &7.into(), &"write".into())
        );
    }
}
