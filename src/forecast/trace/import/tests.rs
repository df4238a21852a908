//! Importing, on a few lines of each format.

use super::*;
use crate::forecast::tick::Tick;
use crate::forecast::trace::What;

fn ticks(text: &str, format: Format) -> Vec<(String, Tick)> {
    let trace = import(text.as_bytes(), format, "test", How::default()).unwrap();
    let name = |partition: u32| trace.names[partition as usize].to_string();
    let tick = |line: &crate::forecast::trace::Line| match line.what {
        What::Tick(tick) => Some((name(line.partition), tick)),
        _ => None,
    };
    trace.lines.iter().filter_map(tick).collect()
}

#[test]
fn requests_are_cut_at_extents() {
    let text = "t,vol,off,size,op\n0.5,3,1044480,8192,W\n1.0,3,1044480,4096,W\n61,3,0,512,R\n";
    let got = ticks(text, Format::Block);
    let names: Vec<&str> = got.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["v3/0", "v3/1", "v3/0"]);
    assert_eq!((got[0].1.writes, got[0].1.appends, got[0].1.pages, got[0].1.growth), (2, 1, 1, 4096));
    assert_eq!(got[0].1.touched, 1 << 63);
    assert_eq!((got[1].1.pages, got[1].1.touched), (1, 1));
    assert_eq!((got[2].1.reads, got[2].1.end.0), (1, 120_000_000));
}

#[test]
fn tables_paths_files_and_rates() {
    let text = "ts,op,table,pages_remain,tuples_removed,tuples_remain,pages_dirtied,wal_bytes\n\
                2024-06-27 00:00:07,vacuum,a.b.c,303,828,667,3,8042\n2024-06-27 00:01:07,analyze,a.b.c,,,,4,\n";
    let got = ticks(text, Format::PgAutovacuum);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].1.writes, got[0].1.bytes, got[0].1.pages, got[0].1.size), (7, 8042, 14, 303 * 8192));

    let text = "ts,commit,op,path,src,size_before,size_after\n0,1,A,a,,,100\n9999999,2,M,a,,100,5000\n\
                99999999,3,R097,b,a,5000,5000\n199999999,4,D,b,,5000,\n";
    let got = ticks(text, Format::FileGrowth);
    assert_eq!(
        got.iter().map(|(_, tick)| (tick.growth, tick.size)).collect::<Vec<_>>(),
        [(100, 100), (4900, 5000), (5000, 5000)]
    );
    // Scaled: half a year is a day.
    assert!((got[1].1.end.0 - 9_999_999_000_000 / 180).abs() <= 480_000_000);

    let got =
        ticks("job,t,gap,in_b,shuf_b,out_b,path\nj,1,1,700,0,1,p\nj,2,1,900,0,1,p\n", Format::PathReads);
    assert_eq!((got[0].1.reads, got[0].1.read_bytes, got[0].1.size), (2, 1600, 900));

    let got = ticks("timestamp,value\n2014-02-14 14:30:00,6.5\n2014-02-14 14:35:00,0\n", Format::Rate);
    assert_eq!((got[0].1.bytes, got[0].1.writes), (26_624, 7));
    assert_eq!((got[1].1.bytes, got[1].1.writes), (0, 0));
}

#[test]
fn what_is_no_such_trace_is_told_with_its_line() {
    for (text, format, want) in [
        ("a,b\n", Format::Block, "line 1: no trace of format block: it needs the columns t,vol"),
        ("t,vol,off,size,op\n1,1,1,1,X\n", Format::Block, "line 2: `X`"),
        ("t,vol,off,size,op\nx,1,1,1,W\n", Format::Block, "line 2: `x` is no number"),
        ("t,vol,off,size,op\n1e300,1,1,1,W\n", Format::Block, "line 2: a time"),
        ("timestamp,value\nyesterday,1\n", Format::Rate, "line 2: `yesterday`"),
        ("t,in_b,path\n1,-4,p\n", Format::PathReads, "line 2: in_b"),
        ("", Format::Rate, "line 0: no trace"),
    ] {
        let error = import(text.as_bytes(), format, "t", How::default()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert!(Format::named("csv").unwrap_err().to_string().contains("block, pg-autovacuum"));
    let how = How { tick_secs: Some(0.0), ..How::default() };
    assert!(import("".as_bytes(), Format::Rate, "t", how).is_err());
}
