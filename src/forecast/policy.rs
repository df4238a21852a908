//! Which shadows are worth their cost: plain arithmetic, and every decision can say why.
//!
//! benefit = likelihood x restore cost saved - baking cost. The saving of a shadow is that the scattered extents which
//! have gathered since the last one need not be looked for: each costs a seek. How long it saves depends on how soon as
//! much has gathered again; a split makes a restore of that moment likely.

use super::predictor::Forecast;
use super::purse::Purse;
use super::signal::Key;
use serde::Serialize;

/// What is known of a partition that may be baked.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    pub key: Key,
    pub forecast: Option<Forecast>,
    /// Of what is written to it the share that is new: it lies beside what has gathered, and not over it. 0 to 1.
    pub new_share: f64,
    /// Distinct pages written since its shadow, or since its history began.
    pub delta_pages: f64,
    /// Scattered extents that they lie in: what one write brought lies together.
    pub extents: f64,
    /// Bytes of the partition.
    pub size: u64,
    /// Age of its shadow; `None`: it has none.
    pub shadow_secs: Option<f64>,
    /// Why it is not baked now, whatever it is worth: nothing is paid for it, and nothing else waits for it.
    pub held: Option<&'static str>,
}

/// What things cost, and how likely a restore is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Costs {
    /// To find and read one scattered extent when restoring.
    pub seek_secs: f64,
    /// Sequential reading and writing.
    pub bytes_per_sec: f64,
    /// Restores of a partition per day, without any sign.
    pub restores_per_day: f64,
    /// Probability that a restore of the moment before a split is wanted, once there is one.
    pub restore_of_split: f64,
    /// Probability that a restore of the moment before a burst of writes is wanted.
    pub restore_of_burst: f64,
    /// What a second of the background's time is worth beside one of a person who waits for a restore.
    pub background: f64,
}

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            seek_secs: 100e-6,
            bytes_per_sec: 400e6,
            restores_per_day: 0.05,
            restore_of_split: 0.3,
            restore_of_burst: 0.02,
            background: 0.002,
        }
    }
}

/// One decision, with its reasons in figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Decision {
    pub partition: String,
    /// Seconds: what it is worth beyond its cost.
    pub benefit_secs: f64,
    /// Probability that a restore profits from it.
    pub likelihood: f64,
    pub saved_secs: f64,
    pub cost_secs: f64,
    /// Bytes that baking reads and writes.
    pub bytes: f64,
    pub bake: bool,
    pub why: String,
}

/// Bytes of an extent.
const EXTENT: f64 = crate::types::PAGE as f64;
/// A shadow is not counted on for longer.
const LIFE_MAX_SECS: f64 = 86_400.0;
/// Fewer extents are not worth a thought.
const EXTENTS_MIN: f64 = 2.0;
/// Nor, to the standard rule, which does not weigh anything, are fewer than these.
const EXTENTS_DUE: f64 = 8.0;
/// A burst is this much more in the next five minutes than has gathered.
const BURST: f64 = 2.0;

/// Bytes that baking takes: what has changed is read and written; without a shadow the whole partition.
pub fn bake_bytes(delta_pages: f64, size: u64, has_shadow: bool) -> f64 {
    let whole = size as f64;
    let delta = delta_pages * EXTENT;
    2.0 * if has_shadow { delta.min(whole.max(EXTENT)) } else { whole.max(delta) }
}

/// Seconds until as much as has gathered is written over: what a shadow saves until then is lost.
fn life_secs(candidate: &Candidate) -> f64 {
    let Some(forecast) = &candidate.forecast else { return LIFE_MAX_SECS / 24.0 };
    let over = 1.0 - candidate.new_share.clamp(0.0, 1.0);
    let [_, five, hour, day] = forecast.pages.map(|pages| f64::from(pages) * over);
    let enough = candidate.delta_pages.max(1.0);
    let [_, _, quiet_hour, quiet_day] = forecast.p_quiet.map(f64::from);
    let busy = if five >= enough {
        300.0 * enough / five
    } else if hour >= enough {
        3_600.0 * enough / hour
    } else if day >= enough {
        86_400.0 * enough / day
    } else {
        LIFE_MAX_SECS
    };
    // If it goes quiet the shadow lives on.
    busy + (LIFE_MAX_SECS - busy).max(0.0) * (0.5 * quiet_hour + 0.5 * quiet_day) * 0.5
}

/// Probability of a split while a shadow lives, an hour at most.
fn split_within(forecast: &Forecast, life: f64) -> f64 {
    let [soon, hour, _] = forecast.p_split.map(f64::from);
    if life < 300.0 {
        soon * life / 300.0
    } else {
        soon + (hour - soon) * ((life - 300.0) / 3_300.0).min(1.0)
    }
}

/// What baking one partition is worth.
pub fn judge(candidate: &Candidate, costs: &Costs) -> Decision {
    let bytes = bake_bytes(candidate.delta_pages, candidate.size, candidate.shadow_secs.is_some());
    let saved = candidate.extents * costs.seek_secs;
    let life = life_secs(candidate);
    let ordinary = 1.0 - (-costs.restores_per_day * life / 86_400.0).exp();
    let (split, burst) = candidate.forecast.as_ref().map_or((0.0, 0.0), |forecast| {
        let gathered = f64::from(forecast.pages[1]) / candidate.delta_pages.max(1.0);
        let burst =
            ((gathered - BURST) / (gathered + BURST)).max(0.0) * (1.0 - f64::from(forecast.p_quiet[1]));
        (split_within(forecast, life), burst)
    });
    let none =
        (1.0 - ordinary) * (1.0 - split * costs.restore_of_split) * (1.0 - burst * costs.restore_of_burst);
    let likelihood = 1.0 - none;
    let cost = costs.background * (candidate.extents * costs.seek_secs + bytes / costs.bytes_per_sec);
    let benefit = likelihood * saved - cost;
    let why = format!(
        "{:.0} extents to look for cost {saved:.2} s; a restore profits with probability {likelihood:.3} (a shadow lives \
         {:.0} min; split within that, of an hour, {split:.2}, burst {burst:.2}); baking {:.1} MiB costs {cost:.3} s",
        candidate.extents,
        life / 60.0,
        bytes / (1 << 20) as f64
    );
    let bake = benefit > 0.0 && candidate.extents >= EXTENTS_MIN;
    let partition = candidate.key.to_string();
    Decision {
        partition,
        benefit_secs: benefit,
        likelihood,
        saved_secs: saved,
        cost_secs: cost,
        bytes,
        bake,
        why,
    }
}

/// Bytes that the largest of these takes: a purse that does not hold as much never pays for it.
pub fn largest<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> f64 {
    let bytes = |one: &Candidate| bake_bytes(one.delta_pages, one.size, one.shadow_secs.is_some());
    candidates.map(bytes).fold(0.0, f64::max)
}

/// Decides on all within what the purse holds: what saves most per byte first. `is_due`: baked even where the benefit is below
/// its cost, for another rule asks for it. What is worth most and cannot be had yet is saved for: what is worth less waits.
pub fn decide(
    candidates: &[Candidate],
    costs: &Costs,
    purse: &mut Purse,
    is_due: impl Fn(&Candidate) -> bool,
) -> Vec<Decision> {
    let decision = |candidate: &Candidate| {
        let mut decision = judge(candidate, costs);
        if !decision.bake && candidate.extents >= EXTENTS_MIN && is_due(candidate) {
            decision.bake = true;
            decision.why.push_str("; due by the standard rule");
        }
        if let Some(held) = candidate.held {
            decision.bake = false;
            decision.why.push_str("; ");
            decision.why.push_str(held);
        }
        decision
    };
    let mut decisions: Vec<Decision> = candidates.iter().map(decision).collect();
    let worth = |decision: &Decision| decision.likelihood * decision.saved_secs / decision.bytes.max(1.0);
    decisions.sort_by(|a, b| worth(b).total_cmp(&worth(a)).then_with(|| a.partition.cmp(&b.partition)));
    let mut saving = false;
    for decision in decisions.iter_mut().filter(|decision| decision.bake) {
        if !saving && decision.bytes <= purse.bytes() {
            purse.spend(decision.bytes);
            continue;
        }
        decision.bake = false;
        decision.why.push_str(if saving {
            "; something worth more is saved for"
        } else {
            "; beyond the budget"
        });
        saving |= purse.can_save_for(decision.bytes);
    }
    decisions
}

/// The standard rule's thresholds: an eighth of the partition has gathered, or its shadow is an hour old, or it has none.
pub fn is_due(candidate: &Candidate) -> bool {
    const SHARE: f64 = 8.0;
    const AT_LATEST_SECS: f64 = 3_600.0;
    let many = candidate.delta_pages * EXTENT * SHARE >= candidate.size as f64;
    many || candidate.shadow_secs.is_none_or(|secs| secs >= AT_LATEST_SECS)
}

/// The standard rule, which needs no forecast: bake when an eighth of the partition has gathered, and at latest after
/// an hour; the most gathered first.
pub fn standard(candidates: &[Candidate], purse: &mut Purse) -> Vec<Decision> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| b.delta_pages.total_cmp(&a.delta_pages).then_with(|| a.key.cmp(&b.key)));
    let decide = |candidate: &&Candidate| {
        let bytes = bake_bytes(candidate.delta_pages, candidate.size, candidate.shadow_secs.is_some());
        let due = is_due(candidate) && candidate.extents >= EXTENTS_DUE;
        let bake = due && candidate.held.is_none() && bytes <= purse.bytes();
        if bake {
            purse.spend(bytes);
        }
        let state = match (due, bake, candidate.held) {
            (true, true, _) => "due".to_owned(),
            (true, false, Some(held)) => format!("due; {held}"),
            (true, false, None) => "due, beyond the budget".to_owned(),
            (false, ..) => "not due".to_owned(),
        };
        Decision {
            partition: candidate.key.to_string(),
            benefit_secs: candidate.extents * 1e-4,
            likelihood: 1.0,
            saved_secs: candidate.extents * 1e-4,
            cost_secs: 0.0,
            bytes,
            bake,
            why: format!("the standard rule: {:.0} extents since its shadow, {state}", candidate.extents),
        }
    };
    sorted.iter().map(decide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, delta_pages: f64) -> Candidate {
        Candidate {
            key: name.into(),
            forecast: Some(Forecast { p_quiet: [0.5; 4], ..Forecast::default() }),
            new_share: 0.0,
            delta_pages,
            extents: delta_pages,
            size: 64 << 20,
            shadow_secs: Some(4_000.0),
            held: None,
        }
    }

    fn holding(bytes: f64) -> Purse {
        let mut purse = Purse::default();
        purse.gather(1.0, bytes, 0.0);
        purse
    }

    fn benefit(candidate: &Candidate) -> f64 {
        judge(candidate, &Costs::default()).benefit_secs
    }

    #[test]
    fn a_split_in_sight_makes_a_shadow_worth_more() {
        let plain = candidate("p", 1_000.0);
        let mut split = plain.clone();
        split.forecast.as_mut().unwrap().p_split = [0.5, 0.9, 0.9];
        assert!(benefit(&split) > benefit(&plain));
        let decision = judge(&split, &Costs::default());
        assert!(
            decision.bake && decision.why.contains("split within that, of an hour, 0.90"),
            "{}",
            decision.why
        );
    }

    #[test]
    fn what_is_written_over_at_once_is_worth_less_than_what_goes_quiet() {
        let mut hot = candidate("p", 1_000.0);
        hot.forecast = Some(Forecast { pages: [500.0, 1_000.0, 9_000.0, 16_000.0], ..Forecast::default() });
        let mut quiet = candidate("p", 1_000.0);
        quiet.forecast = Some(Forecast { p_quiet: [1.0; 4], ..Forecast::default() });
        assert!(benefit(&quiet) > 2.0 * benefit(&hot), "{} {}", benefit(&quiet), benefit(&hot));
        // And before a burst it is worth more than in the middle of steady writing.
        let mut burst = hot.clone();
        (burst.delta_pages, burst.extents) = (100.0, 100.0);
        let mut steady = burst.clone();
        steady.forecast = Some(Forecast { pages: [20.0, 100.0, 1_200.0, 16_000.0], ..Forecast::default() });
        assert!(judge(&burst, &Costs::default()).why.contains("burst 0.6"));
        assert!(judge(&steady, &Costs::default()).why.contains("burst 0.00"));
    }

    #[test]
    fn nothing_gathered_is_nothing_to_bake() {
        for delta in [0.0, 1.0] {
            assert!(!judge(&candidate("p", delta), &Costs::default()).bake);
        }
        assert!(!standard(&[candidate("p", 0.0)], &mut holding(1e12))[0].bake);
        // Much that was written in one piece is read in one piece.
        let piece = Candidate { extents: 1.0, ..candidate("p", 10_000.0) };
        assert!(!judge(&piece, &Costs::default()).bake);
    }

    #[test]
    fn the_budget_is_kept_and_the_best_go_first() {
        let many: Vec<Candidate> =
            (1..=20).map(|n| candidate(&format!("p{n:02}"), f64::from(n) * 100.0)).collect();
        let by_rule: fn(&[Candidate], &mut Purse) -> Vec<Decision> = standard;
        let by_worth: fn(&[Candidate], &mut Purse) -> Vec<Decision> =
            |c, purse| decide(c, &Costs::default(), purse, |_| false);
        for rule in [by_worth, by_rule] {
            let decide = |c: &[Candidate], bytes| rule(c, &mut holding(bytes));
            let budget = 20e6;
            let decisions = decide(&many, budget);
            let baked: Vec<&Decision> = decisions.iter().filter(|decision| decision.bake).collect();
            assert!(!baked.is_empty() && baked.iter().map(|decision| decision.bytes).sum::<f64>() <= budget);
            assert!(decide(&many, 0.0).iter().all(|decision| !decision.bake));
            assert_eq!(decide(&many, budget), decisions);
        }
        let decisions = by_worth(&many, &mut holding(20e6));
        assert!(decisions.iter().any(|d| d.why.contains("beyond the budget")));
    }

    #[test]
    fn what_is_worth_most_is_saved_for_unless_that_takes_too_long() {
        let dear = Candidate { extents: 1e6, ..candidate("dear", 1_000.0) };
        let both = [candidate("cheap", 100.0), dear];
        let baked = |bytes_per_sec: f64| {
            let mut purse = Purse::default();
            purse.gather(1.0, 0.0, 1e6);
            purse.gather(1e6 / bytes_per_sec, bytes_per_sec, 1e6);
            let decisions = decide(&both, &Costs::default(), &mut purse, |_| false);
            decisions.iter().filter(|decision| decision.bake).map(|d| d.partition.clone()).collect::<Vec<_>>()
        };
        // It takes 8 MB, of which there is one: the rest comes within ten minutes, or does not.
        assert_eq!(baked(20_000.0), Vec::<String>::new());
        assert_eq!(baked(2_000.0), ["cheap"]);
    }

    #[test]
    fn nothing_is_paid_for_what_is_held_and_nothing_waits_for_it() {
        let held = Some("a shadow of it is wished for already");
        let dear = Candidate { extents: 1e6, held, ..candidate("dear", 1_000.0) };
        let both = [candidate("cheap", 100.0), dear];
        let by_rule: fn(&[Candidate], &mut Purse) -> Vec<Decision> = standard;
        let by_worth: fn(&[Candidate], &mut Purse) -> Vec<Decision> =
            |c, purse| decide(c, &Costs::default(), purse, |_| true);
        for rule in [by_worth, by_rule] {
            // Enough for the cheap one; what is held would be saved for.
            for bytes in [1e6, 1e9] {
                let mut purse = Purse::default();
                purse.gather(1.0, bytes, bytes);
                let decisions = rule(&both, &mut purse);
                let baked: Vec<&Decision> = decisions.iter().filter(|decision| decision.bake).collect();
                assert_eq!(baked.len(), 1, "{decisions:?}");
                assert_eq!((&*baked[0].partition, bytes - baked[0].bytes), ("cheap", purse.bytes()));
            }
            let why =
                rule(&both, &mut holding(1e9)).into_iter().find(|decision| decision.partition == "dear");
            assert!(why.unwrap().why.ends_with("wished for already"));
        }
    }

    #[test]
    fn what_a_rule_finds_due_is_baked_although_it_is_not_worth_it_and_comes_last() {
        let hot = Forecast { pages: [1e3, 8e3, 1e5, 1e6], ..Forecast::default() };
        let not_worth = Candidate { forecast: Some(hot), ..candidate("hot", 4_000.0) };
        let both = [not_worth, candidate("worth", 4_000.0)];
        let baked = |bytes: f64, due: bool| {
            let decisions = decide(&both, &Costs::default(), &mut holding(bytes), |_| due);
            decisions.iter().filter(|decision| decision.bake).map(|d| d.partition.clone()).collect::<Vec<_>>()
        };
        assert_eq!(baked(1e9, false), ["worth"]);
        assert_eq!(baked(1e9, true), ["worth", "hot"]);
        assert_eq!(baked(40e6, true), ["worth"], "for one of them there is enough");
        let fresh = Candidate { shadow_secs: Some(60.0), ..candidate("p", 100.0) };
        assert!(!is_due(&fresh) && is_due(&candidate("old", 100.0)));
        assert!(is_due(&Candidate { delta_pages: 2_048.0, ..fresh }), "an eighth");
    }

    #[test]
    fn what_grows_is_not_written_over_and_its_shadow_lives_on() {
        let pages = [500.0, 1_000.0, 9_000.0, 16_000.0];
        let over = Candidate {
            forecast: Some(Forecast { pages, ..Forecast::default() }),
            ..candidate("p", 1_000.0)
        };
        let beside = Candidate { new_share: 0.95, ..over.clone() };
        assert!(benefit(&beside) > 2.0 * benefit(&over), "{} {}", benefit(&beside), benefit(&over));
        // A split in sight counts as far as a shadow lives until then.
        let splits = |candidate: &Candidate| {
            let mut candidate = candidate.clone();
            candidate.forecast.as_mut().unwrap().p_split = [1.0, 1.0, 1.0];
            judge(&candidate, &Costs::default()).likelihood
        };
        let short = Forecast { pages: [2e4, 1e5, 1e6, 1e7], ..Forecast::default() };
        assert!(splits(&over) > 0.29 && splits(&Candidate { forecast: Some(short), ..over }) < 0.05);
    }

    #[test]
    fn a_first_shadow_costs_the_whole_partition() {
        assert_eq!(bake_bytes(10.0, 1 << 20, false), 2.0 * 1_048_576.0);
        assert_eq!(bake_bytes(10.0, 1 << 20, true), 2.0 * 40_960.0);
    }
}
