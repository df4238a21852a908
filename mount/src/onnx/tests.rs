//! Real graphs in real processes: this test program is its own worker.

use super::library;
use super::process::{Launch, Worker};
use super::signature::{Wanted, key};
use super::worker;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const GOOD: &[u8] = include_bytes!("fixtures/good.onnx");
/// Set in the processes that are workers.
const MARK: &str = "WEFT_TEST_INFERENCE_WORKER";

/// Not a test but the worker of the others, when they start it.
#[test]
fn worker_of_the_tests() {
    if std::env::var_os(MARK).is_some() {
        worker::serve().unwrap();
    }
}

fn launch() -> Launch {
    let program = std::env::current_exe().unwrap();
    let args = format!("{MARK}=1 {} --exact onnx::tests::worker_of_the_tests", program.display());
    Launch { program: "/usr/bin/env".into(), args: args.split(' ').map(str::to_owned).collect() }
}

/// `scripts/setup` places it; this test program is in target/debug/deps.
fn runtime() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let placed = target.join("tools/onnxruntime/libonnxruntime.so.1.24.4");
    let asked = placed.is_file().then_some(placed);
    library::find(asked.as_deref()).expect("scripts/setup places the library")
}

fn wanted() -> Wanted {
    let outputs = vec![("sum".to_string(), 1), ("twice".to_string(), 2)];
    Wanted { schema: "of-the-tests".into(), features: 3, outputs }
}

fn start(model: &[u8]) -> Result<Worker, String> {
    Worker::start(&launch(), &runtime(), model, &wanted())
}

fn refused(model: &[u8]) -> String {
    let told = start(model).map(|_| ()).unwrap_err();
    assert!(!told.contains('\n'), "{told}");
    told
}

#[test]
fn a_model_runs_batched_and_says_what_it_is() {
    let mut worker = start(GOOD).unwrap();
    assert_eq!(worker.signature.custom[key::SEED], "1");
    let told = worker.run(&[1.0, 2.0, 3.0, 0.0, 0.0, 1.0], LIMIT).unwrap();
    let want = [6.0, 17.0, 17f32.ln(), 1.0, 4.0, 4f32.ln()];
    assert!(
        told.len() == 6 && told.iter().zip(want).all(|(told, want)| (told - want).abs() < 1e-6),
        "{told:?}"
    );
    assert!(worker.run(&[], LIMIT).unwrap().is_empty());
    assert!(worker.run(&[1.0; 4], LIMIT).unwrap_err().contains("rows of 3"));
    // Odd inputs are not an error of the runtime: whoever reads the outputs looks at each.
    let odd = worker.run(&[f32::NAN, 0.0, 0.0, -1.0, 0.0, 0.0], LIMIT).unwrap();
    assert!(odd[0].is_nan() && odd[5].is_nan() && odd[4] == -1.0, "{odd:?}");
    let many = vec![1.0; 3 * 10_000];
    for _ in 0..20 {
        let told = worker.run(&many, LIMIT).unwrap();
        assert!(told.len() == 30_000 && (told[29_999] - 7f32.ln()).abs() < 1e-6);
    }
    assert!(worker.resident_bytes().unwrap() > 1 << 20);
}

#[test]
fn what_is_not_a_fit_model_is_refused() {
    assert!(refused(b"").contains("not a model"));
    assert!(refused(b"hello").contains("not a model"));
    assert!(refused(&GOOD[..GOOD.len() / 2]).contains("not a model"));
    assert!(refused(include_bytes!("fixtures/other_schema.onnx")).contains("for features of-long-ago"));
    assert!(refused(include_bytes!("fixtures/no_schema.onnx")).contains("does not say"));
    assert!(refused(include_bytes!("fixtures/fewer_outputs.onnx")).contains("gives sum[-1, 1], not"));
    let more = Wanted { features: 4, ..wanted() };
    let told = Worker::start(&launch(), &runtime(), GOOD, &more).map(|_| ()).unwrap_err();
    assert!(told.contains("not rows of 4"), "{told}");
}

#[test]
fn a_damaged_model_is_an_error_or_harmless_whatever_byte_it_is() {
    let mut errors = 0;
    for at in (0..GOOD.len()).step_by(23) {
        let mut bad = GOOD.to_vec();
        bad[at] ^= 0x5a;
        match start(&bad).and_then(|mut worker| worker.run(&[1.0, 2.0, 3.0], LIMIT)) {
            Ok(told) => assert_eq!(told.len(), 3, "a row of its outputs, whatever they are: {at}"),
            Err(told) => {
                assert!(!told.is_empty() && !told.contains('\n'), "{at}: {told}");
                errors += 1;
            }
        }
    }
    assert!(errors > 5, "{errors}");
    assert_eq!(start(GOOD).unwrap().run(&[1.0, 2.0, 3.0], LIMIT).unwrap().len(), 3, "no other is harmed");
}

#[test]
fn a_library_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.so");
    std::fs::write(&text, b"not a library").unwrap();
    let other = Path::new("/proc/self/exe");
    for (library, want) in
        [(&*dir.path().join("gone.so"), "no such file"), (&text, "not a fit"), (other, "not a fit")]
    {
        let told = Worker::start(&launch(), library, GOOD, &wanted()).map(|_| ()).unwrap_err();
        assert!(told.contains(want) && !told.contains('\n'), "{told}");
    }
}

#[test]
fn a_model_that_never_ends_is_stopped() {
    let mut worker = start(include_bytes!("fixtures/endless.onnx")).unwrap();
    let told = worker.run(&[1.0, 2.0, 3.0], Duration::from_millis(300)).unwrap_err();
    assert!(told.contains("did not answer within 0.3 s"), "{told}");
    assert!(worker.run(&[1.0, 2.0, 3.0], LIMIT).is_err(), "a stopped one stays so");
}

#[test]
fn a_process_that_crashes_is_an_error() {
    let shell =
        |script: &str| Launch { program: "/bin/sh".into(), args: ["-c", script].map(str::to_owned).to_vec() };
    for (script, want) in [
        ("kill -SEGV $$", "signal 11"),
        ("exit 3", "exit code 3"),
        ("head -c 9 /dev/zero >&0; sleep 9", "nonsense"),
    ] {
        let told = Worker::start(&shell(script), &runtime(), GOOD, &wanted()).map(|_| ()).unwrap_err();
        assert!(told.contains(want), "{script}: {told}");
    }
    let gone = Launch { program: "/nowhere/at/all".into(), args: Vec::new() };
    let told = Worker::start(&gone, &runtime(), GOOD, &wanted()).map(|_| ()).unwrap_err();
    assert!(told.contains("cannot start the inference process"), "{told}");
}
