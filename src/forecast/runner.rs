//! Runs a model on a thread of its own, with a deadline. Whatever it does (fails, hangs, panics, answers nonsense), the
//! caller gets an answer in time: forecasts, or why there are none.

use super::features::{self, Rows};
use super::predictor::{Forecast, Predictor, WIDTH};
use crate::sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Why there are no forecasts, for `weft status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It was trained for other features.
    Schema { wants: String },
    /// It said so.
    Failed(String),
    /// Not one finite row.
    NotFinite,
    /// No answer within the deadline; its thread is still at it.
    Late,
    /// It panicked, and is not asked again.
    Panicked(String),
    /// No thread could be started.
    NoThread(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Schema { wants } => write!(
                f,
                "the model was trained for other features (schema {}..., this weft has {}...): train it anew",
                short(wants),
                short(&features::schema_hash())
            ),
            Trouble::Failed(cause) => write!(f, "the model failed: {cause}"),
            Trouble::NotFinite => write!(f, "the model answers no finite numbers"),
            Trouble::Late => write!(f, "the model did not answer in time"),
            Trouble::Panicked(cause) => write!(f, "the model crashed: {cause}"),
            Trouble::NoThread(cause) => write!(f, "no thread for the model: {cause}"),
        }
    }
}

fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// Answers of a model to a batch: a forecast per row, or none for that row.
pub type Answers = Vec<Option<Forecast>>;

type Job = Arc<Rows>;
type Done = Result<Vec<f32>, Trouble>;

/// See the head of this file.
pub struct Runner {
    id: String,
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    /// An answer is owed.
    owed: bool,
    /// It is not asked again.
    ended: Option<Trouble>,
}

impl Runner {
    /// Takes a model into service.
    ///
    /// # Errors
    /// It is for other features, or there is no thread.
    pub fn new(predictor: Box<dyn Predictor>) -> Result<Runner, Trouble> {
        // Even these may panic: they are the model's.
        let asked = catch_unwind(AssertUnwindSafe(|| (predictor.id(), predictor.schema())));
        let (id, schema) = asked.map_err(|panic| Trouble::Panicked(message(&*panic)))?;
        if schema != features::schema_hash() {
            return Err(Trouble::Schema { wants: schema });
        }
        let (jobs, work) = sync_channel::<Job>(1);
        let (answer, done) = sync_channel(1);
        std::thread::Builder::new()
            .name("weft-infer".into())
            .spawn(move || serve(predictor, &work, &answer))
            .map_err(|error| Trouble::NoThread(error.to_string()))?;
        Ok(Runner { id, jobs, done, owed: false, ended: None })
    }

    /// Which model.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Forecasts for rows, within `limit`.
    ///
    /// # Errors
    /// Why there are none.
    pub fn run(&mut self, rows: &Arc<Rows>, limit: Duration) -> Result<Answers, Trouble> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        if self.owed {
            // What it was asked before, and answers too late, is of no use to anyone.
            match self.done.try_recv() {
                Ok(late) => self.note(late.map(|_| ())),
                Err(TryRecvError::Empty) => return Err(Trouble::Late),
                Err(TryRecvError::Disconnected) => return Err(self.gone()),
            }
            self.owed = false;
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
        }
        if self.jobs.send(Arc::clone(rows)).is_err() {
            return Err(self.gone());
        }
        match self.done.recv_timeout(limit) {
            Ok(Ok(values)) => answers(&values, rows.keys.len()),
            Ok(Err(trouble)) => {
                self.note(Err(trouble.clone()));
                Err(trouble)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.owed = true;
                Err(Trouble::Late)
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
        }
    }

    fn note(&mut self, done: Result<(), Trouble>) {
        if let Err(trouble @ Trouble::Panicked(_)) = done {
            self.ended = Some(trouble);
        }
    }

    fn gone(&mut self) -> Trouble {
        self.ended.get_or_insert(Trouble::Panicked("its thread is gone".into())).clone()
    }
}

fn serve(mut predictor: Box<dyn Predictor>, work: &Receiver<Job>, answer: &SyncSender<Done>) {
    while let Ok(rows) = work.recv() {
        let count = rows.keys.len();
        let mut out = vec![0.0; count * WIDTH];
        let run = AssertUnwindSafe(|| predictor.predict(&rows.values, count, &mut out));
        let done = match catch_unwind(run) {
            Ok(Ok(())) => Ok(out),
            Ok(Err(error)) => Err(Trouble::Failed(error.message)),
            Err(panic) => Err(Trouble::Panicked(message(&*panic))),
        };
        let ended = matches!(done, Err(Trouble::Panicked(_)));
        if answer.send(done).is_err() || ended {
            break;
        }
    }
    // A model may panic even at its end.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(predictor)));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".into())
}

fn answers(values: &[f32], rows: usize) -> Result<Answers, Trouble> {
    let answers: Answers = values.chunks_exact(WIDTH).map(Forecast::from_row).collect();
    if rows > 0 && answers.iter().all(Option::is_none) {
        return Err(Trouble::NotFinite);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::forecast::features::Features;
    use crate::forecast::{Signal, Tick};
    use crate::types::Timestamp;

    type Act = fn(&mut [f32]) -> crate::error::Result<()>;

    struct Fake(Act, &'static str);

    impl Predictor for Fake {
        fn id(&self) -> String {
            "fake".into()
        }
        fn schema(&self) -> String {
            if self.1.is_empty() { features::schema_hash() } else { self.1.into() }
        }
        fn predict(&mut self, _: &[f32], _: usize, out: &mut [f32]) -> crate::error::Result<()> {
            self.0(out)
        }
    }

    fn rows() -> Arc<Rows> {
        let mut features = Features::default();
        for n in 0..3 {
            let tick = Tick { end: Timestamp(10), span_us: 10, writes: 1, ..Tick::default() };
            features.take(&Signal::Activity { partition: format!("p{n}").into(), tick });
        }
        Arc::new(features.rows(Timestamp(10)))
    }

    fn run(act: Act) -> (Result<Answers, Trouble>, Runner) {
        let mut runner = Runner::new(Box::new(Fake(act, ""))).unwrap();
        (runner.run(&rows(), Duration::from_secs(20)), runner)
    }

    #[test]
    fn a_model_answers_and_one_bad_row_is_no_forecast() {
        let (answers, _) = run(|out| {
            out.fill(0.5);
            out[0] = f32::NAN;
            Ok(())
        });
        let answers = answers.unwrap();
        assert!(answers[0].is_none() && answers[1].is_some() && answers.len() == 3);
    }

    #[test]
    fn one_that_returns_nan_is_no_model() {
        let (answers, _) = run(|out| {
            out.fill(f32::NAN);
            Ok(())
        });
        assert_eq!(answers.unwrap_err(), Trouble::NotFinite);
    }

    #[test]
    fn one_that_fails_is_asked_again() {
        let (answers, mut runner) = run(|_| Err(Error::invalid("test", "no library")));
        assert_eq!(answers.unwrap_err(), Trouble::Failed("no library".into()));
        assert!(matches!(runner.run(&rows(), Duration::from_secs(20)), Err(Trouble::Failed(_))));
    }

    #[test]
    fn one_that_panics_is_caught_and_not_asked_again() {
        let (answers, mut runner) = run(|_| panic!("boom"));
        assert_eq!(answers.unwrap_err(), Trouble::Panicked("boom".into()));
        assert_eq!(
            runner.run(&rows(), Duration::from_secs(20)).unwrap_err(),
            Trouble::Panicked("boom".into())
        );
    }

    #[test]
    fn one_that_hangs_costs_the_deadline_once() {
        let act: Act = |_| {
            std::thread::park();
            Ok(())
        };
        let mut runner = Runner::new(Box::new(Fake(act, ""))).unwrap();
        assert_eq!(runner.run(&rows(), Duration::from_millis(20)).unwrap_err(), Trouble::Late);
        // It owes an answer: nobody waits for it again.
        assert_eq!(runner.run(&rows(), Duration::from_secs(3_600)).unwrap_err(), Trouble::Late);
    }

    #[test]
    fn other_features_are_refused() {
        let refused = Runner::new(Box::new(Fake(|_| Ok(()), "0123456789"))).err().unwrap();
        assert!(refused.to_string().contains("schema 01234567..."), "{refused}");
    }
}
