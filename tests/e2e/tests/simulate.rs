//! `weft simulate`: a trace is replayed without a mount, by the program as people run it.

use serde_json::Value;
use std::path::{Path, PathBuf};
use weft_e2e::cmd::{self, Output};
use weft_e2e::place::Place;

fn weft(args: &[&str]) -> Output {
    cmd::run(weft_e2e::mount::weft().args(args))
}

/// A device of a few extents: one written over and over, one in bursts, others once.
fn public_trace(place: &Place) -> PathBuf {
    let mut text = String::from("t,vol,off,size,op\n");
    for second in (0..14_400u64).step_by(20) {
        let page = second * 37 % 200;
        text.push_str(&format!("{second},0,{},4096,W\n", page * 4096));
        text.push_str(&format!("{second},0,{},4096,W\n", (1 << 20) + second % 50 * 4096));
        if second % 1_800 < 120 {
            for n in 0..60 {
                text.push_str(&format!(
                    "{second}.{n:02},0,{},4096,W\n",
                    (1 << 20) + (second * 7 + n * 11) % 256 * 4096
                ));
            }
        }
        text.push_str(&format!("{second}.5,0,{},512,W\n", (2 + second / 20) << 20));
    }
    let path = place.join("public.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn policies_are_compared_on_an_imported_trace_without_a_mount() {
    let place = Place::new();
    let (public, trace) = (public_trace(&place), place.join("trace.csv.gz"));
    weft(&["trace", "import", path(&public), "--format", "block", "-o", path(&trace)]).ok();
    let args = ["simulate", path(&trace), "--seed", "3", "--json"];
    let told: Value = serde_json::from_str(&weft(&args).ok()).unwrap();
    let policies = told["policies"].as_array().unwrap();
    let names: Vec<&str> = policies.iter().map(|policy| policy["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "standard", "ewma", "model", "oracle"]);
    let cost = |name: &str| {
        let found = policies.iter().find(|policy| policy["policy"] == name).unwrap();
        found["cost"].as_f64().unwrap()
    };
    assert_eq!(cost("none"), 1.0);
    for name in names {
        assert!(cost("oracle") <= cost(name) + 1e-9 && cost(name) <= 1.0 + 1e-9, "{name}: {told:#}");
    }
    assert!(cost("oracle") < 0.9, "{told:#}");
    assert!(policies.iter().all(|policy| policy["incidents"]["instants"].as_u64().unwrap() > 0), "{told:#}");
    assert!(told["model"].as_str().unwrap().starts_with("shipped "), "{told:#}");
    assert_eq!(told["beside_standard"].as_array().unwrap().len(), 2, "{told:#}");
    let again: Value = serde_json::from_str(&weft(&args).ok()).unwrap();
    assert_eq!(again, told, "the same seed gives the same figures");

    let two = weft(&["simulate", path(&trace), "--policy", "oracle", "--policy", "none"]).ok();
    let rows: Vec<&str> = two.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, ["POLICY", "none", "oracle"], "{two}");
    let table = weft(&["simulate", path(&trace)]).ok();
    assert!(table.contains("model beside standard: cost ") && table.contains("to the oracle"), "{table}");
}

#[test]
fn what_cannot_be_simulated_is_told_in_a_line() {
    let place = Place::new();
    let trace = place.join("trace.csv");
    weft(&["trace", "import", path(&public_trace(&place)), "--format", "block", "-o", path(&trace)]).ok();
    let nonsense = place.join("nonsense");
    std::fs::write(&nonsense, "nonsense\n").unwrap();
    let (trace, nonsense) = (path(&trace), path(&nonsense));
    let refused: [(&[&str], &str); 8] = [
        (&["simulate", "/no/such.csv"], "/no/such.csv"),
        (&["simulate", nonsense], nonsense),
        (&["simulate", trace, "--policy", "best"], "there is no `best`"),
        (&["simulate", trace, "--skip", "1"], "--skip"),
        (&["simulate", trace, "--budget", "-1"], "--budget"),
        (&["simulate", trace, "--splits", "month"], "no policy of splits"),
        (&["simulate", trace, "--model", "abcdef"], "--store"),
        (&["simulate", trace, "--onnxruntime", "/no/such.so"], "/no/such.so"),
    ];
    for (args, why) in refused {
        let told = weft(args);
        assert!(told.code != 0 && told.stderr.contains(why), "{args:?}: {told:?}");
        assert!(told.code == 2 || told.stderr.lines().count() == 1, "{args:?}: {told:?}");
    }
    // Without a library the other policies still work.
    let told = weft(&["simulate", trace, "--policy", "standard", "--onnxruntime", "/no/such.so"]).ok();
    assert!(told.contains("standard"), "{told}");
}
