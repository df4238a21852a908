//! Models on real mounts: the shipped one at work out of the box, others in its place without a remount, and what is
//! told when there is none. History never needs one.

use std::path::Path;
use std::time::{Duration, Instant};
use weft_e2e::cmd::{self, Output};
use weft_e2e::mount::Mount;
use weft_e2e::place::Place;

fn model(mount: &Mount, args: &[&str]) -> Output {
    cmd::run(mount.weft().arg("model").args(args).arg(&mount.point))
}

/// Waits until the daemon says which model is at work, or why none is.
fn settled(mount: &Mount) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let told = mount.status()["model"].clone();
        let loading = told["trouble"].as_str().is_some_and(|cause| cause.contains("being loaded"));
        if !loading {
            return told;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The shipped model works in place of the one that was chosen, and every list says so, and why.
fn stands_in(mount: &Mount, why: &str) {
    let told = settled(mount);
    assert!(told["id"].as_str().unwrap().starts_with("shipped "), "{told}");
    assert!(told["refused"]["why"].as_str().unwrap().contains(why), "{told}");
    let table = cmd::run(mount.weft().arg("status").arg(&mount.point)).ok();
    assert!(table.contains("in place of the one that was chosen") && table.contains(why), "{table}");
    let listed = model(mount, &["list"]).ok();
    assert!(listed.contains("in its place  shipped") && listed.contains(why), "{listed}");
    let chosen = listed.lines().find(|line| line.starts_with('*')).unwrap();
    assert!(!chosen.contains("shipped"), "the choice stays: {listed}");
    let forecast = cmd::run(mount.weft().args(["forecast", "--json"]).arg(&mount.point)).ok();
    let forecast: serde_json::Value = serde_json::from_str(&forecast).unwrap();
    let events = forecast["forecast"]["events"].to_string();
    assert!(events.contains("the shipped one is at work") && events.contains(why), "{events}");
}

fn works(mount: &Mount, name: &str) {
    let file = mount.point.join(name);
    std::fs::write(&file, b"first").unwrap();
    let then = mount.at("now");
    std::fs::write(&file, b"second").unwrap();
    assert_eq!(std::fs::read(then.join(name)).unwrap(), b"first");
}

#[test]
fn the_shipped_model_works_out_of_the_box_and_is_swapped_without_a_remount() {
    let place = Place::new();
    let mount = Mount::new(&place).mount();
    let told = settled(&mount);
    assert!(told["id"].as_str().unwrap_or("").starts_with("shipped "), "{told}");
    assert!(told["resident_bytes"].as_u64().unwrap() < 96 << 20, "{told}");
    let shown = model(&mount, &["show", "shipped"]).ok();
    assert!(
        shown.contains("fits       yes") && shown.contains("licence") && !shown.contains("not stated"),
        "{shown}"
    );

    // The same weights under another seed are another model.
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mount/models/shipped.onnx");
    let mut bytes = std::fs::read(shipped).unwrap();
    let maker = b"weft tools/train";
    let at =
        bytes.windows(maker.len()).position(|window| window == maker).expect("the model names its maker");
    bytes[at] = b'W';
    let other = place.join("other.onnx");
    std::fs::write(&other, &bytes).unwrap();
    let pids = mount.daemons();
    let used = model(&mount, &["use", other.to_str().unwrap()]).ok();
    assert!(used.starts_with("the mount uses model "), "{used}");
    let told = settled(&mount);
    assert!(!told["id"].as_str().unwrap().starts_with("shipped"), "{told}");
    assert_eq!(mount.daemons(), pids, "no remount");
    let listed = model(&mount, &["list"]).ok();
    assert!(listed.contains("shipped") && listed.matches('*').count() == 1, "{listed}");

    // A damaged one is told of, and the shipped one works in its place; the choice stays, and the mount is as it was.
    let kept = std::fs::read_dir(mount.store.join("models")).unwrap().flatten().map(|entry| entry.path());
    let kept = kept.filter(|path| path.extension().is_some_and(|ext| ext == "onnx")).last().unwrap();
    std::fs::write(&kept, b"spoilt").unwrap();
    mount.unmount();
    mount.remount();
    stands_in(&mount, "is damaged");
    works(&mount, "file");
    // Put back, it is taken up again.
    std::fs::write(&kept, &bytes).unwrap();
    mount.unmount();
    mount.remount();
    let told = settled(&mount);
    assert!(told["refused"].is_null() && !told["id"].as_str().unwrap().starts_with("shipped"), "{told}");
    // For other features, as after an upgrade.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mount/src/onnx/fixtures/other_schema.onnx");
    let old = std::fs::read(old).unwrap();
    let name = blake3::hash(&old).to_hex().to_string();
    std::fs::write(mount.store.join(format!("models/{name}.onnx")), &old).unwrap();
    std::fs::write(mount.store.join("models/used.json"), format!("{{\"model\":\"{name}\"}}")).unwrap();
    mount.unmount();
    mount.remount();
    stands_in(&mount, "the model is for features of-long-ago");
    assert!(mount.store.join(format!("models/{name}.onnx")).exists());
    model(&mount, &["use", "shipped"]).ok();
    let told = settled(&mount);
    assert!(told["refused"].is_null() && told["id"].as_str().unwrap().starts_with("shipped "), "{told}");
    mount.unmount();
}

#[test]
fn without_a_library_status_says_why_and_the_mount_works() {
    let place = Place::new();
    let mount = Mount::new(&place);
    std::fs::create_dir(&mount.store).unwrap();
    let missing = "/no/such/libonnxruntime.so";
    std::fs::write(mount.store.join("weft.toml"), format!("onnxruntime = \"{missing}\"\n")).unwrap();
    let mount = mount.mount();
    let told = settled(&mount);
    assert!(told["id"].is_null() && told["trouble"].as_str().unwrap().contains(missing), "{told}");
    let table = cmd::run(mount.weft().arg("status").arg(&mount.point)).ok();
    assert!(
        table.contains("model      none, the standard rule decides: ") && table.contains(missing),
        "{table}"
    );
    works(&mount, "file");
    for args in [&["use", "abcdef"][..], &["use", "/no/such.onnx"], &["use", "shipped"], &["show", "abcdef"]]
    {
        let refused = model(&mount, args);
        assert!(refused.code == 1 && refused.stderr.lines().count() == 1, "{args:?}: {refused:?}");
    }
    let nonsense = place.join("nonsense.onnx");
    std::fs::write(&nonsense, b"nonsense").unwrap();
    assert_eq!(model(&mount, &["use", nonsense.to_str().unwrap()]).code, 1);
    assert!(!mount.store.join("models").exists(), "nothing refused is kept");
    mount.unmount();
}

#[test]
fn a_mount_that_does_not_forecast_starts_no_model() {
    let place = Place::new();
    let mount = Mount::new(&place);
    std::fs::create_dir(&mount.store).unwrap();
    std::fs::write(mount.store.join("weft.toml"), "forecast = false\n").unwrap();
    let mount = mount.mount();
    let used = model(&mount, &["use", "shipped"]).ok();
    assert!(used.contains("forecast = false in weft.toml") && used.contains("model shipped"), "{used}");
    let told = mount.status()["model"].clone();
    assert!(told["id"].is_null() && told["trouble"] == "forecast = false in weft.toml", "{told}");
    mount.unmount();
}
