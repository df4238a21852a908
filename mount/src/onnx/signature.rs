//! What goes into a model and comes out of it, and what it says of itself. Checked when a model is loaded: a model for
//! other features would run and answer nonsense.

use crate::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One input or output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    pub float32: bool,
    /// -1 for the number of rows.
    pub shape: Vec<i64>,
}

impl Port {
    /// Numbers of a row; `None` when it is not rows of float32.
    fn width(&self) -> Option<usize> {
        match (self.float32, self.shape.as_slice()) {
            (true, [-1, width]) => usize::try_from(*width).ok(),
            _ => None,
        }
    }
}

/// A model's whole face.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// ONNX `metadata_props`.
    pub custom: BTreeMap<String, String>,
}

/// What this program can use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Names and order of the features, as a hash.
    pub schema: String,
    /// Features of a row.
    pub features: usize,
    /// Name and width of each output, in order.
    pub outputs: Vec<(String, usize)>,
}

/// Keys of a model's `metadata_props`, written by tools/train.
pub mod key {
    /// Hash of names and order of the features.
    pub const SCHEMA: &str = "schema";
    /// Day of training.
    pub const DATE: &str = "date";
    /// Seed of training.
    pub const SEED: &str = "seed";
    /// Training data: name, SHA-256 and licence of each, as JSON.
    pub const DATA: &str = "data";
    /// Scores beside the baselines, as JSON.
    pub const SCORES: &str = "scores";
}

impl Signature {
    /// Whether a model can be used.
    ///
    /// # Errors
    /// One line with the first thing that does not fit.
    pub fn check(&self, wanted: &Wanted) -> Outcome<()> {
        match self.custom.get(key::SCHEMA) {
            Some(schema) if *schema == wanted.schema => {}
            Some(schema) => {
                return Err(format!(
                    "the model is for features {schema}, this weft computes {}: train it anew (`weft train`)",
                    wanted.schema
                ));
            }
            None => return Err(format!("the model does not say for which features it is ({})", key::SCHEMA)),
        }
        match self.inputs.as_slice() {
            [input] if input.width() == Some(wanted.features) => {}
            inputs => {
                return Err(format!(
                    "the model takes {}, not rows of {} float32",
                    told(inputs),
                    wanted.features
                ));
            }
        }
        let fits = self.outputs.len() == wanted.outputs.len()
            && self
                .outputs
                .iter()
                .zip(&wanted.outputs)
                .all(|(port, (name, width))| port.name == *name && port.width() == Some(*width));
        if fits {
            return Ok(());
        }
        let named: Vec<String> =
            wanted.outputs.iter().map(|(name, width)| format!("{name}[{width}]")).collect();
        Err(format!("the model gives {}, not {}", told(&self.outputs), named.join(", ")))
    }
}

fn told(ports: &[Port]) -> String {
    const MOST: usize = 12;
    let named: Vec<String> =
        ports.iter().take(MOST).map(|port| format!("{}{:?}", port.name, port.shape)).collect();
    if named.is_empty() { "nothing".into() } else { named.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, width: i64) -> Port {
        Port { name: name.into(), float32: true, shape: vec![-1, width] }
    }

    #[test]
    fn only_what_fits_is_taken() {
        let wanted =
            Wanted { schema: "abc".into(), features: 3, outputs: vec![("a".into(), 1), ("b".into(), 2)] };
        let good = Signature {
            inputs: vec![port("x", 3)],
            outputs: vec![port("a", 1), port("b", 2)],
            custom: [(key::SCHEMA.to_string(), "abc".to_string())].into(),
        };
        assert_eq!(good.check(&wanted), Ok(()));
        type Spoil = fn(&mut Signature);
        let spoilt: [(Spoil, &str); 8] = [
            (|it| it.custom.clear(), "does not say"),
            (|it| drop(it.custom.insert(key::SCHEMA.into(), "old".into())), "features old"),
            (|it| it.inputs = vec![port("x", 4)], "rows of 3 float32"),
            (|it| it.inputs.clear(), "takes nothing"),
            (|it| it.inputs[0].float32 = false, "rows of 3"),
            (|it| it.outputs.swap(0, 1), "not a[1], b[2]"),
            (|it| drop(it.outputs.pop()), "gives a[-1, 1], not"),
            (|it| it.outputs[0].shape = vec![-1], "gives a[-1]"),
        ];
        for (spoil, want) in spoilt {
            let mut bad = good.clone();
            spoil(&mut bad);
            let told = bad.check(&wanted).unwrap_err();
            assert!(told.contains(want), "{told}");
        }
    }
}
