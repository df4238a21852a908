//! The `weft` command: one file per subcommand. Errors are one line on standard error; the exit code is 1, or 2 for a
//! wrong command line.

mod at;
mod diff;
mod forecast;
mod index;
mod inference_worker;
mod journal;
mod leases;
mod log;
mod model;
mod mount;
mod output;
mod partitions;
mod prune;
mod recover;
mod resolve;
mod restore;
mod retention;
mod shadow;
mod simulate;
mod space;
mod split;
mod splits;
mod status;
mod tag;
mod tags;
mod trace;
mod train;
mod unmount;
mod weave;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A filesystem that goes beneath an unmodified database and keeps its whole past.
#[derive(Parser)]
#[command(name = "weft", version, arg_required_else_help = true)]
struct Cli {
    /// The STORE, where it does not stand beside DATA as DATA.weft
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Mount(mount::Args),
    Unmount(unmount::Args),
    Recover(recover::Args),
    Status(status::Args),
    At(at::Args),
    Resolve(resolve::Args),
    Weave(weave::Args),
    Prune(prune::Args),
    #[command(subcommand)]
    Retention(retention::Command),
    Tag(tag::Args),
    Tags(tags::Args),
    Leases(leases::Args),
    Log(log::Args),
    Diff(diff::Args),
    #[command(subcommand)]
    Model(model::Command),
    Partitions(partitions::Args),
    Train(train::Args),
    Restore(restore::Args),
    #[command(subcommand)]
    Split(split::Command),
    Splits(splits::Args),
    #[command(hide = true)]
    InferenceWorker(inference_worker::Args),
    Forecast(forecast::Args),
    Simulate(simulate::Args),
    #[command(subcommand)]
    Shadow(shadow::Command),
    /// List the shadows, and what they cost
    Shadows(shadow::List),
    #[command(subcommand)]
    Trace(trace::Command),
    #[command(subcommand)]
    Index(index::Command),
    #[command(subcommand)]
    Journal(journal::Command),
}

/// How a command ended, or its one line of complaint.
type Outcome = weft_mount::Outcome<ExitCode>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let store = cli.store.as_deref();
    let outcome = match cli.command {
        Command::Mount(args) => mount::run(args, store),
        Command::Unmount(args) => unmount::run(&args, store),
        Command::Recover(args) => recover::run(&args, store),
        Command::Status(args) => status::run(&args, store),
        Command::At(args) => at::run(&args, store),
        Command::Resolve(args) => resolve::run(&args, store),
        Command::Prune(args) => prune::run(&args, store),
        Command::Retention(command) => retention::run(&command, store),
        Command::Weave(args) => weave::run(&args, store),
        Command::Tag(args) => tag::run(&args, store),
        Command::Tags(args) => tags::run(&args, store),
        Command::Leases(args) => leases::run(&args, store),
        Command::Log(args) => log::run(&args, store),
        Command::Diff(args) => diff::run(&args, store),
        Command::Model(command) => model::run(&command, store),
        Command::Train(args) => train::run(&args, store),
        Command::Forecast(args) => forecast::run(&args, store),
        Command::Simulate(args) => simulate::run(&args, store),
        Command::Shadow(command) => shadow::run(&command, store),
        Command::Shadows(args) => shadow::list(&args, store),
        Command::Trace(command) => trace::run(&command, store),
        Command::Partitions(args) => partitions::run(&args, store),
        Command::Restore(args) => restore::run(&args, store),
        Command::Split(command) => split::run(&command, store),
        Command::Splits(args) => splits::run(&args, store),
        Command::InferenceWorker(args) => inference_worker::run(&args),
        Command::Index(command) => index::run(&command, store),
        Command::Journal(command) => journal::run(&command, store),
    };
    outcome.unwrap_or_else(|cause| {
        output::complain(&cause);
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_may_begin_with_a_minus() {
        for line in [&["weft", "at", "-5m"][..], &["weft", "resolve", "-1h30m", "/d", "--json"]] {
            assert!(Cli::try_parse_from(line).is_ok(), "{line:?}");
        }
        let cli = Cli::try_parse_from(["weft", "at", "-5m", "/d", "--store", "/s"]).unwrap();
        assert_eq!(cli.store.unwrap(), PathBuf::from("/s"));
    }
}
