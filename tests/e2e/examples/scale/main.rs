//! What the past costs as it grows: histories of more and more events, real ones on a real mount and generated ones in
//! the index alone. Run by `scripts/bench scale`; prints a table, writes JSON and a plot.

mod figures;
mod generated;
mod plot;
mod real;
mod workload;

use figures::Figures;
use serde_json::json;
use std::path::PathBuf;
use weft_e2e::wall::Wall;

const HELP: &str = "scripts/bench scale [options]
  --real LIST          numbers of real page writes (100000,1000000)
  --generated LIST     numbers of generated page versions (100000,1000000,10000000)
  --reads N            instants looked at in each history (2000)
  --plot FILE          where the plot goes (target/bench/scale.svg)
  --out DIR            where the JSON goes (target/bench)";

struct Options {
    real: Vec<u64>,
    generated: Vec<u64>,
    reads: usize,
    plot: PathBuf,
    out: PathBuf,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options {
            real: vec![100_000, 1_000_000],
            generated: vec![100_000, 1_000_000, 10_000_000],
            reads: 2000,
            plot: PathBuf::from("target/bench/scale.svg"),
            out: PathBuf::from("target/bench"),
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--help" {
                return Err(HELP.to_owned());
            }
            let value = arguments.next().ok_or_else(|| format!("{name} wants a value\n{HELP}"))?;
            match name.as_str() {
                "--real" => options.real = numbers(value)?,
                "--generated" => options.generated = numbers(value)?,
                "--reads" => {
                    options.reads =
                        value.parse().map_err(|_| format!("{name} wants a number, not {value}"))?;
                }
                "--plot" => options.plot = PathBuf::from(value),
                "--out" => options.out = PathBuf::from(value),
                _ => return Err(format!("unknown option {name}\n{HELP}")),
            }
        }
        Ok(options)
    }
}

fn numbers(list: &str) -> Result<Vec<u64>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a number\n{HELP}"));
    list.split(',').filter(|text| !text.is_empty()).map(number).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What has to be measured in a process of its own.
    if let [mode, dir, entries, reads] = &arguments[..]
        && mode.starts_with("generated-")
    {
        return generated::in_child(mode, dir.as_ref(), entries, reads);
    }
    let options = Options::parse(&arguments).unwrap_or_else(|message| {
        eprintln!("{message}");
        std::process::exit(2);
    });
    println!("{}", Figures::heading());
    let mut all = Vec::new();
    for entries in &options.real {
        all.push(shown(real::measure(*entries, options.reads)));
    }
    for entries in &options.generated {
        all.push(shown(generated::measure(*entries, options.reads)));
    }
    write(&options, &all);
}

fn shown(figures: Figures) -> Figures {
    println!("{figures}");
    figures
}

fn write(options: &Options, all: &[Figures]) {
    let at = Wall::now();
    let results: Vec<_> = all.iter().map(Figures::json).collect();
    let report = json!({"at": at.canonical(), "reads": options.reads, "results": results});
    std::fs::create_dir_all(&options.out).expect("make the output directory");
    let path = options.out.join(format!("scale-{}.json", at.basic()));
    std::fs::write(&path, format!("{report:#}\n")).expect("write the report");
    std::fs::write(&options.plot, plot::svg(all)).expect("write the plot");
    println!("{}\n{}", path.display(), options.plot.display());
}
