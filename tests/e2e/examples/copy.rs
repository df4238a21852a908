//! Copying a whole table out of the past, with cp and rsync, against copying the plain file: without a shadow, and with
//! one that covers it. Run by scripts/bench copy.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use weft_e2e::bench;
use weft_e2e::cold::forget;
use weft_e2e::{Mount, Place, cmd, load::median, wall::Wall};

const HELP: &str = "scripts/bench copy [options]
  --mib N        size of the table (2048)
  --writes N     writes of 8 KiB between the instant and now (1000000)
  --rounds N     interleaved rounds (4); an even number
  --old YES|NO   the table was there before Weft came (no)
  --woven YES|NO the journal is woven before the copying (no)
  --warm YES|NO  what is read may be in the kernel's cache (no)
  --out DIR      where the JSON goes (target/bench)";
const PAGE: usize = 8192;
const CHUNK: usize = 1 << 20;

struct Options {
    mib: usize,
    writes: usize,
    rounds: usize,
    old: bool,
    woven: bool,
    warm: bool,
    out: PathBuf,
}

impl Options {
    fn parse() -> Options {
        let mut options = Options {
            mib: 2048,
            writes: 1_000_000,
            rounds: 4,
            old: false,
            woven: false,
            warm: false,
            out: PathBuf::from("target/bench"),
        };
        bench::options(HELP, |name, value| {
            let number = || bench::number(name, value);
            match (name, value) {
                ("--mib", _) => options.mib = number()?,
                ("--writes", _) => options.writes = number()?,
                ("--rounds", _) => options.rounds = number()?.next_multiple_of(2),
                ("--old", "yes" | "no") => options.old = value == "yes",
                ("--woven", "yes" | "no") => options.woven = value == "yes",
                ("--warm", "yes" | "no") => options.warm = value == "yes",
                ("--out", _) => options.out = PathBuf::from(value),
                _ => return bench::unknown(name, value),
            }
            Ok(())
        });
        options
    }
}

/// Pages as a database's: rows that are alike, with some noise in each.
fn page(number: u64, round: u64) -> Vec<u8> {
    let mut seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    let mut bytes = Vec::with_capacity(PAGE);
    while bytes.len() < PAGE {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
        bytes.extend_from_slice(format!("{number:>16} a row like any other, round {round:>8}").as_bytes());
    }
    bytes.truncate(PAGE);
    bytes
}

fn main() {
    let options = Options::parse();
    let place = Place::new();
    let mount = Mount::new(&place);
    let raw = place.join("raw");
    fs::create_dir(&raw).expect("mkdir");
    fs::create_dir(&mount.store).expect("mkdir");
    fs::write(mount.store.join("weft.toml"), "shadow = false\nweave = false\n").expect("weft.toml");
    load(&options, &raw);
    if options.old {
        load(&options, &mount.data);
    }
    let mount = mount.mount();
    if !options.old {
        load(&options, &mount.point);
    }
    let view = mount.at("now");
    change(&options, &mount.point);
    if options.woven {
        cmd::run(mount.weft().args(["weave", "--now"]).arg(&mount.point)).ok();
    }
    println!(
        "{} MiB, {} writes later; old {}, woven {}, warm {}; {} rounds",
        options.mib, options.writes, options.old, options.woven, options.warm, options.rounds
    );
    let mut results = Vec::new();
    for covered in [false, true] {
        if covered {
            let at = view.file_name().expect("a view").to_string_lossy().replace("@ts=", "");
            let table = mount.point.join("table");
            cmd::run(mount.weft().args(["shadow", "add"]).arg(&table).args(["--at", &at])).ok();
        }
        for tool in ["cp", "rsync"] {
            results.push(measure(&options, (tool, covered), &place, &mount, &raw, &view));
        }
    }
    compare(&raw.join("table"), &view.join("table"));
    let stored = mount.status();
    let report = json!({
        "at": Wall::now().canonical(), "mib": options.mib, "writes": options.writes, "old": options.old,
        "woven": options.woven, "warm": options.warm, "results": results, "status": stored,
    });
    bench::report(&options.out, "copy-", Wall::now(), &report);
    mount.unmount();
}

fn load(options: &Options, dir: &Path) {
    let file = File::create(dir.join("table")).expect("create");
    let pages = CHUNK / PAGE;
    for chunk in 0..options.mib {
        let bytes: Vec<u8> = (0..pages).flat_map(|at| page((chunk * pages + at) as u64, 0)).collect();
        file.write_all_at(&bytes, (chunk * CHUNK) as u64).expect("load");
    }
    file.sync_all().expect("sync");
}

/// Random pages are written, by two writers.
fn change(options: &Options, dir: &Path) {
    let pages = (options.mib * CHUNK / PAGE) as u64;
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            scope.spawn(move || {
                let file = File::options().write(true).open(dir.join("table")).expect("open");
                let mut seed = 88_172_645_463_325_252 + writer;
                for round in 0..options.writes as u64 / 2 {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    let number = seed % pages;
                    file.write_all_at(&page(number, round + 1), number * PAGE as u64).expect("write");
                }
                file.sync_all().expect("sync");
            });
        }
    });
}

/// All rounds of a tool; prints its line.
fn measure(
    options: &Options,
    (tool, covered): (&str, bool),
    place: &Place,
    mount: &Mount,
    raw: &Path,
    view: &Path,
) -> Value {
    let (mut plain, mut past) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        for first in [round % 2 == 0, round % 2 != 0] {
            let (from, times) = if first { (raw, &mut plain) } else { (view, &mut past) };
            if !options.warm {
                forget(&[raw, &view.join("table"), &mount.store, &mount.data]);
            }
            times.push(copy(tool, &from.join("table"), &place.join("copy")));
        }
    }
    let ratios: Vec<f64> = plain.iter().zip(&past).map(|(plain, past)| plain / past).collect();
    // Whoever copies what was copied just before is faster, as by a cache beneath the machine: in one round it is the one, in
    // the next the other.
    let ratio = median(ratios.chunks_exact(2).map(|pair| pair.iter().product::<f64>().sqrt()).collect());
    println!(
        "{tool:<6} {:<8} raw {:>6.2} s, past {:>6.2} s, ratio {ratio:.2} ({})",
        if covered { "shadow" } else { "history" },
        median(plain.clone()),
        median(past.clone()),
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" "),
    );
    json!({ "tool": tool, "covered": covered, "raw_s": plain, "past_s": past, "ratio_median": ratio })
}

fn copy(tool: &str, from: &Path, to: &Path) -> f64 {
    let _ = fs::remove_file(to);
    cmd::call("sync", &["-f".as_ref(), to.parent().expect("a parent").as_os_str()]).ok();
    let mut command = Command::new(tool);
    if tool == "rsync" {
        command.arg("-a");
    }
    let begun = Instant::now();
    cmd::run(command.arg(from).arg(to)).ok();
    begun.elapsed().as_secs_f64()
}

fn compare(left: &Path, right: &Path) {
    let (left, right) = (File::open(left).expect("open"), File::open(right).expect("open"));
    let len = left.metadata().expect("stat").len();
    assert_eq!(len, right.metadata().expect("stat").len());
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    for at in (0..len).step_by(CHUNK) {
        left.read_exact_at(&mut a, at).expect("read");
        right.read_exact_at(&mut b, at).expect("read");
        assert!(a == b, "the copy would differ in the MiB at {at}");
    }
}
