use crate::status::bytes;
use crate::{Outcome, output};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use weft_mount::config::Config;
use weft_mount::models::{self, Listed, Note};
use weft_mount::onnx::{Launch, OnnxPredictor, signature::key};
use weft_mount::{control, place};

/// The models of a STORE: which there are, which is used, what one says of itself
#[derive(clap::Subcommand)]
pub enum Command {
    /// All models, and which one is used
    List(List),
    /// Use another model from now on; a mount changes over at once. The old one is kept
    Use(Use),
    /// What a model says of itself: its data and their licences, its scores beside the baselines
    Show(Show),
}

#[derive(clap::Args)]
pub struct List {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Use {
    /// `shipped`, the beginning of a model's hash, or a file (a path with a `/` or ending in .onnx), which is copied
    model: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Show {
    /// As for `use`; by default the model in use
    model: Option<String>,
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    match command {
        Command::List(args) => list(args, store),
        Command::Use(args) => use_model(args, store),
        Command::Show(args) => show(args, store),
    }
}

fn list(args: &List, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let models = models::list(&store)?;
    // Only a mount knows whether what was chosen is at work.
    let at_work = match control::is_served(&store) {
        true => control::ask(&store, &control::Ask::Status)?["model"].take(),
        false => Value::Null,
    };
    let rows = models.iter().map(|model| listed(model, &at_work)).collect::<Result<Vec<Value>, String>>()?;
    if args.json { output::print_json(&Value::Array(rows)) } else { output::print(&list_table(&rows)) }
}

/// A model, and of the one that was chosen why a mount cannot use it; `at_work`: what its status says of models.
fn listed(model: &Listed, at_work: &Value) -> Result<Value, String> {
    let mut row = serde_json::to_value(model).map_err(|cause| cause.to_string())?;
    let refused = at_work.pointer("/refused/why").cloned().unwrap_or_default();
    let in_its_place = !refused.is_null() && model.name == models::SHIPPED;
    row["why_not"] = if model.used { refused } else { Value::Null };
    row["in_its_place"] = in_its_place.into();
    Ok(row)
}

fn list_table(models: &[Value]) -> String {
    let text = |model: &Value, key: &str| model[key].as_str().unwrap_or_default().to_owned();
    let row = |model: &Value| {
        let used = match (model["used"] == true, model["in_its_place"] == true) {
            (true, _) => "*",
            (false, true) => "in its place",
            (false, false) => "",
        };
        let name = text(model, "name");
        let size = bytes(model["bytes"].as_f64().unwrap_or(0.0));
        [used.into(), models::short(&name).to_owned(), size, text(model, "added"), text(model, "from")]
    };
    let rows: Vec<[String; 5]> = models.iter().map(row).collect();
    let why = models.iter().filter_map(|model| model["why_not"].as_str());
    let why: String = why.map(|why| format!("* is chosen and cannot be used: {why}\n")).collect();
    output::columns(&["USED", "MODEL", "SIZE", "ADDED", "FROM"], &rows) + &why
}

fn use_model(args: &Use, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let model = match is_file(&args.model) {
        true => read_file(Path::new(&args.model))?,
        false => models::load(&store, &args.model)?,
    };
    // A model that does not run here is not chosen.
    let tried = start(&store, model.clone()).and_then(|mut model| model.try_out());
    tried.map_err(|cause| format!("{} cannot be used: {cause}", args.model))?;
    let name = match is_file(&args.model) {
        true => models::add(&store, &model.bytes, &note(&args.model))?,
        false => model.name,
    };
    let name = models::choose(&store, &name)?;
    let told = reload(&store)?;
    // A mount that does not forecast has none.
    let at_work = told.get("model").is_some_and(Value::is_string);
    if args.json {
        return output::print_json(&json!({ "used": name, "at_work": at_work }));
    }
    let when = match told.get("why").and_then(Value::as_str) {
        Some(why) => format!("the mount uses none ({why}); the next one that does will use"),
        None if at_work => "the mount uses".into(),
        None => "the next mount will use".into(),
    };
    output::print(&format!("{when} model {}\n", models::short(&name)))
}

/// Has a mount take up what is chosen now; what it says of it, null where nothing is mounted.
///
/// # Errors
/// It cannot use it.
pub fn reload(store: &Path) -> Result<Value, String> {
    if !control::is_served(store) {
        return Ok(Value::Null);
    }
    let told = control::ask(store, &control::Ask::ModelReload)?;
    match told.pointer("/refused/why").and_then(Value::as_str) {
        Some(why) => {
            Err(format!("the mount cannot use what is chosen now, and uses the shipped model: {why}"))
        }
        None => Ok(told),
    }
}

fn show(args: &Show, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.path.as_deref(), store)?;
    let model = match &args.model {
        Some(file) if is_file(file) => read_file(Path::new(file))?,
        Some(name) => models::load(&store, name)?,
        None => models::load_used(&store)?,
    };
    let listed = models::list(&store)?.into_iter().find(|listed| listed.blake3 == model.blake3);
    let (name, blake3, size) = (model.name.clone(), model.blake3.clone(), model.bytes.len());
    let started = start(&store, model);
    let told = |key: &str| {
        let signature = started.as_ref().ok().map(OnnxPredictor::signature);
        signature.and_then(|signature| signature.custom.get(key)).cloned().unwrap_or_default()
    };
    let parsed = |key: &str| serde_json::from_str::<Value>(&told(key)).unwrap_or(Value::Null);
    let shown = json!({
        "name": name,
        "blake3": blake3,
        "bytes": size,
        "fits": started.is_ok(),
        "why_not": started.as_ref().err(),
        "schema": told(key::SCHEMA),
        "date": told(key::DATE),
        "seed": told(key::SEED),
        "data": parsed(key::DATA),
        "scores": parsed(key::SCORES),
        "note": listed.map(|listed| listed.note),
    });
    if args.json { output::print_json(&shown) } else { output::print(&table(&shown)) }
}

fn table(shown: &Value) -> String {
    let text = |key: &str| match shown.get(key) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let fits = match shown.get("fits").and_then(Value::as_bool) {
        Some(true) => "yes".to_string(),
        _ => format!("no: {}", text("why_not")),
    };
    let data = shown.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
    let data = data.iter().map(|data| {
        let field = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        (
            "data",
            format!("{} ({}, SHA-256 {})", field("name"), field("licence"), models::short(&field("sha256"))),
        )
    });
    let scores = shown.get("scores").and_then(Value::as_object).cloned().unwrap_or_default();
    let scores = scores.iter().map(|(task, score)| ("score", format!("{task}: {score}")));
    let lines = [
        ("model", text("name")),
        ("blake3", text("blake3")),
        ("size", bytes(shown.get("bytes").and_then(Value::as_f64).unwrap_or(0.0))),
        ("fits", fits),
        ("features", text("schema")),
        ("trained", text("date")),
        ("seed", text("seed")),
    ];
    let lines = lines.into_iter().chain(data).chain(scores).filter(|(_, value)| !value.is_empty());
    lines.map(|(key, value)| format!("{key:<10} {value}\n")).collect()
}

/// Runs a model here and now: whether it fits is found out, not guessed.
pub fn start(store: &Path, model: models::Model) -> weft_mount::Outcome<OnnxPredictor> {
    let config = Config::load(store)?;
    OnnxPredictor::start(Launch::of_weft(), config.onnxruntime(), model)
}

/// It names a file rather than a model of a STORE.
pub fn is_file(model: &str) -> bool {
    model.contains('/') || model.ends_with(".onnx")
}

/// A model in a file of the operator's.
pub fn read_file(path: &Path) -> weft_mount::Outcome<models::Model> {
    let bytes = models::from_path(path)?;
    let blake3 = models::hash(&bytes);
    Ok(models::Model { name: blake3.clone(), blake3, bytes })
}

/// What to remember of a model that comes now.
pub fn note(from: &str) -> Note {
    Note {
        added: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
        from: from.into(),
        report: Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_is_chosen_and_what_works_in_its_place() {
        let model = |name: &str, used| Listed {
            name: name.into(),
            blake3: name.into(),
            bytes: 9,
            used,
            note: Note::default(),
        };
        let all = [model("shipped", false), model("0123456789abcdef", true)];
        let table = |at_work: Value| {
            let rows: Vec<Value> = all.iter().map(|model| listed(model, &at_work).unwrap()).collect();
            list_table(&rows)
        };
        for fine in [Value::Null, json!({ "id": "0123456789ab", "refused": null })] {
            let table = table(fine);
            assert!(table.contains("*     0123456789ab") && !table.contains("in its place"), "{table}");
        }
        let table = table(json!({ "id": "shipped", "refused": { "model": "0123", "why": "it is old" } }));
        assert!(
            table.contains("in its place  shipped") && table.contains("*             0123456789ab"),
            "{table}"
        );
        assert!(table.ends_with("* is chosen and cannot be used: it is old\n"), "{table}");
    }
}
