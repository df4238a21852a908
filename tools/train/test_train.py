"""Run by scripts/test: python -m unittest discover tools/train. A few seconds."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import train  # first: it sets the number of threads

import numpy as np
import onnx

import compare
import graph
import judge
import lineages
import net
import scores
import stretch
import synthetic
from data import Rows
from outputs import ASKED, COLUMNS, COUNTS, HORIZONS, OUTPUTS, WIDTH

HERE = Path(__file__).parent
LABELS = (
    [f"split_{h}s" for h in (300, 3600, 86400)]
    + ["split_secs", "split_point", "left_secs"]
    + [f"{what}_{h}s" for what in ("pages", "bytes", "reads", "quiet") for h in (60, 300, 3600, 86400)]
)
FEATURES = ["fill", "size", "busy", "noise", "age", "burst_21600s"]


def write_rows(directory, moments=240, partitions=20, seed=3):
    """A site where `busy` partitions are written in the next window, and the others are not."""
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    n = moments * partitions
    at = np.repeat(np.arange(moments) * 60 + 1_700_000_000, partitions)
    key = np.tile(np.arange(partitions), moments)
    busy = rng.random(n) < 0.3
    x = np.stack([rng.random(n), np.full(n, 5.0), busy, rng.standard_normal(n), at - at[0], np.full(n, 5.0)], axis=1).astype(np.float32)
    labels = np.full((n, len(LABELS)), np.nan, np.float32)
    put = lambda name, values: labels.__setitem__((slice(None), LABELS.index(name)), values)
    written = np.where(busy, rng.integers(1, 50, n), 0)
    put("left_secs", at[-1] + 60 - at)
    for horizon in (60, 300):
        put(f"pages_{horizon}s", written)
        put(f"bytes_{horizon}s", written * 4096)
        put(f"quiet_{horizon}s", written == 0)
    split = busy & (x[:, 0] > 0.9)
    put("split_300s", split)
    put("split_secs", np.where(split, 100, np.nan))
    put("split_point", np.where(split, 0.5, np.nan))
    arrays = {"features": x, "labels": labels, "at_us": at * 1_000_000, "partition": key, "weight": np.ones(n, np.float32)}
    baseline = np.full((n, WIDTH), np.nan, np.float32)
    baseline[:, COLUMNS["pages"]] = rng.integers(0, 2, (n, 4))
    for name in ("persistence", "ewma", "climatology"):
        arrays[f"baseline_{name}"] = baseline
    for name, values in arrays.items():
        np.save(directory / f"{name}.npy", values)
    about = {"source": "a_test", "schema": "s" * 64, "features": FEATURES, "labels": LABELS, "baselines": ["persistence", "ewma", "climatology"]}
    (directory / "about.json").write_text(json.dumps(about))


def call(*args):
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True)


class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.dir = Path(cls.scratch.name)
        write_rows(cls.dir / "site")
        cls.rows = Rows(cls.dir / "site")
        cls.rows.begin = 0.8
        cls.scaler, cls.experts, cls.net = train.train([cls.rows], 1, epochs=12, log=lambda line: None)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def model(self):
        path = self.dir / "model.onnx"
        graph.save(graph.assemble(self.scaler, self.experts, self.net, {"schema": "s", "seed": 1}), path)
        return path

    def test_the_graph_says_what_the_network_says(self):
        x = self.rows.x[:500]
        said = judge.predict(self.model(), x)
        want = net.plain(self.net.forward(self.scaler(x), self.experts(x)))
        self.assertEqual(said.shape, (500, WIDTH))
        np.testing.assert_allclose(said, want, rtol=2e-4, atol=1e-5)

    def test_any_input_gives_numbers(self):
        x = np.array([[1e30] * 6, [-1e30] * 6, [0] * 6], np.float32)
        said = judge.predict(self.model(), x)
        self.assertTrue(np.isfinite(said).all() and (said >= 0).all())
        self.assertTrue((said[:, COLUMNS["p_quiet"]] <= 1).all())

    def test_it_learns_what_is_there(self):
        said = judge.predict(self.model(), self.rows.x)
        busy = np.array(self.rows.x[:, 2]) > 0
        quiet = said[:, COLUMNS["p_quiet"].start]
        self.assertLess(quiet[busy].mean(), 0.1)
        self.assertGreater(quiet[~busy].mean(), 0.9)
        told = judge.written(self.rows, said, 60, share=(0.1,))
        self.assertEqual([one["verdict"] for one in told], ["wins", "wins"])

    def test_the_signature_is_the_one_that_the_daemon_wants(self):
        model = onnx.load(self.model())
        outputs = [(o.name, o.type.tensor_type.shape.dim[1].dim_value) for o in model.graph.output]
        self.assertEqual(outputs, list(OUTPUTS))
        self.assertEqual((model.ir_version, model.opset_import[0].version), (8, 17))
        self.assertEqual({p.key for p in model.metadata_props}, {"schema", "seed"})

    def test_the_same_seed_is_the_same_bytes(self):
        made = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            out = self.dir / f"{name}.onnx"
            ran = call(HERE / "train.py", "--out", out, "--seed", seed, "--source", f"{self.dir / 'site'}:ours")
            self.assertEqual(ran.returncode, 0, ran.stderr)
            made.append(out.read_bytes())
        self.assertEqual(made[0], made[1])
        self.assertNotEqual(made[0], made[2])

    def test_what_may_not_train_does_not(self):
        ran = call(HERE / "train.py", "--out", self.dir / "x.onnx", "--source", f"{self.dir / 'site'}:not stated")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("may judge, not train", ran.stderr)
        self.assertFalse((self.dir / "x.onnx").exists())

    def test_targets_do_not_reach_beyond_their_part(self):
        middle = self.rows.split(0.5)[0]
        index, y = self.rows.within(self.rows.at.min(), middle)
        late = self.rows.at[index] + 300 > middle
        column = COLUMNS["pages"].start + 1
        self.assertTrue(np.isnan(y[late, column]).all())
        self.assertTrue(np.isfinite(y[~late, column]).all())


    def test_a_challenger_goes_on_from_the_champion_and_is_compared(self):
        write_rows(self.dir / "later", seed=9)
        champion = self.model()
        out = self.dir / "challenger.onnx"
        ran = call(HERE / "train.py", "--out", out, "--from", champion, "--source", f"{self.dir / 'later'}:ours")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        rows = Rows(self.dir / "later")
        same = compare.compare(champion, champion, rows)
        self.assertEqual((same["better"], same["champion"]), (False, same["challenger"]))
        worse = self.dir / "worse.onnx"
        poor = net.Net(len(FEATURES), (4, 4), 1, self.experts.near)
        graph.save(graph.assemble(self.scaler, self.experts, poor, {}), worse)
        self.assertTrue(compare.compare(worse, out, rows)["better"])
        self.assertFalse(compare.compare(out, worse, rows)["better"])
        self.assertGreaterEqual(compare.MOMENTS_LEAST, 2 * judge.BLOCKS, "blocks are of several moments")
        # Of minutes nothing follows, however good they look.
        write_rows(self.dir / "minutes", moments=30, partitions=200)
        told = compare.compare(worse, out, Rows(self.dir / "minutes"))
        self.assertFalse(told["better"])
        self.assertIn("6 moments within 300 s", told["why"])
        # What `weft train` takes for enough is; of less than that by what the last moment may know, nothing is.
        for moments, enough in ((150, False), (156, True)):
            write_rows(self.dir / f"of_{moments}", moments=moments)
            told = compare.compare(worse, out, Rows(self.dir / f"of_{moments}"))
            self.assertEqual("why" not in told, enough, told)


class Synthetic(unittest.TestCase):
    def test_partitions_are_read_synced_and_grow_while_they_are_written(self):
        lines = [values for seed in (35, 47) for _, _, values in synthetic.site(seed)[0]]
        lines = [values for values in lines if not isinstance(values, str)]
        written = [values for values in lines if values[0] > 0]
        share = lambda holds: sum(map(holds, written)) / len(written)
        self.assertGreater(share(lambda v: v[7] > 0), 0.05, "read")
        self.assertGreater(share(lambda v: v[9] > 1), 0.01, "synced")
        self.assertGreater(share(lambda v: v[2] > 0 and v[3] > 0), 0.01, "appended to and overwritten")
        self.assertTrue(all(v[2] + v[3] == v[0] and v[6] >= 0 for v in lines))


    def test_some_sites_have_partitions_that_divide_and_such_that_only_come_and_go(self):
        split, gone, last = set(), {}, {}
        for seed in range(1, 9):
            for end, name, values in lineages.of_site(seed, 300, 10, 0)[0]:
                key = (seed, name)
                if values == "gone":
                    gone[key] = end
                elif values == "split":
                    split.add(key)
                else:
                    last[key] = max(end, last.get(key, 0))
        self.assertGreater(len(split), 50)
        self.assertTrue(split & gone.keys() and split - gone.keys(), "some parents go, some stay")
        self.assertTrue(gone.keys() - split, "others go without")
        self.assertTrue(all(last[key] <= end for key, end in gone.items()), "nothing is told of what is gone")

    def test_a_site_in_one_directory_names_its_partitions_by_numbers(self):
        seed = next(seed for seed in range(1, 50) if lineages.of_site(seed, 99, 10, 0)[1])
        lines = synthetic.site(seed)[0]
        self.assertTrue(all(name.startswith("base/5/") for _, name, _ in lines))
        self.assertEqual([end for end, _, _ in lines], sorted(end for end, _, _ in lines))

    def test_what_divides_at_a_size_is_about_as_large_each_time(self):
        sizes, spread = {}, []
        for seed in range(40):
            sizes.clear()
            for _, name, values in lineages.dividing(np.random.default_rng(seed), "p", 900, 10, 0):
                if values == "split":
                    spread.append((seed, np.log(sizes[name])))
                elif values != "gone":
                    sizes[name] = values[6]
        each = [np.std([size for of, size in spread if of == seed]) for seed in {of for of, _ in spread}]
        self.assertGreater(len(each), 25)
        self.assertLess(np.median(each), 0.4)

    def test_parts_that_are_touched_are_those_of_the_daemon(self):
        mib = 1 << 20
        self.assertEqual(lineages.mask(0, 1, 64 * mib), 1)
        self.assertEqual(lineages.mask(mib - 1, mib + 1, 64 * mib), 0b11)
        self.assertEqual(lineages.mask(63 * mib, 64 * mib, 64 * mib), 1 << 63)
        self.assertEqual(lineages.mask(0, 64 * mib, 64 * mib), (1 << 64) - 1)


class Stretching(unittest.TestCase):
    def test_times_are_stretched_and_nothing_else(self):
        lines = [
            "#weft-trace 1 tick_us=2000000 source=live\n", f"{synthetic.HEAD}\n",
            "1000000,p,tick,2000000,3,4,0,3,1,0,9,0,0,0,0000000000000001\n",
            '1000007,"a,tick,5,""b",split,,,,,,,,,,,,0.5\n', "3000000,p,gone\n",
        ]
        made = list(stretch.stretch(lines, 450))
        self.assertEqual(made[0], "#weft-trace 1 tick_us=900000000 source=live_stretched_450\n")
        self.assertEqual(made[2], "1000000,p,tick,900000000,3,4,0,3,1,0,9,0,0,0,0000000000000001\n")
        self.assertEqual(made[3].split(",", 1)[0], "1003150")
        self.assertEqual(made[4], "901000000,p,gone\n")


class Gradients(unittest.TestCase):
    def test_they_are_the_slopes_of_the_loss(self):
        rng = np.random.default_rng(1)
        x = rng.standard_normal((6, 4)).astype(np.float32)
        y = np.abs(rng.standard_normal((6, WIDTH))).astype(np.float32)
        y[:, COLUMNS["p_quiet"]] = 1
        y[0] = np.nan
        y[1, COLUMNS["split_secs"]] = -50
        weight = np.ones(6, np.float32)
        near = np.zeros(len(ASKED) * 2)
        said = net.beside(np.abs(rng.standard_normal((6, len(ASKED), 2))).astype(np.float32), np.full((6, 1), 0.4))
        made = net.Net(4, (5, 3), 1, near)
        target = net.inside(y)
        _, grads = made.gradients(x, said, target, weight)
        for key in ("w1", "w3", "w4", "skip", "b2"):
            flat = made.w[key].reshape(-1)
            at, step = 1, 1e-2
            keep = flat[at]
            flat[at] = keep + step
            up = made.gradients(x, said, target, weight)[0]
            flat[at] = keep - step
            down = made.gradients(x, said, target, weight)[0]
            flat[at] = keep
            self.assertAlmostEqual((up - down) / (2 * step), float(grads[key].reshape(-1)[at]), delta=5e-3, msg=key)


class Merging(unittest.TestCase):
    def test_what_is_merged_stays_what_it_was(self):
        near = np.zeros(len(ASKED) * 2)
        nets = [net.Net(4, (5, 3), seed, near) for seed in (1, 2, 3)]
        rng = np.random.default_rng(1)
        x = rng.standard_normal((6, 4)).astype(np.float32)
        said = net.beside(np.abs(rng.standard_normal((6, len(ASKED), 2))).astype(np.float32))
        before = [one.forward(x, said).copy() for one in nets]
        whole = net.merged(nets)
        for one, was in zip(nets, before):
            np.testing.assert_array_equal(one.forward(x, said), was)
        # What goes beside the experts is a line: the mean of what each says.
        straight = [column for column in range(WIDTH) if column not in ASKED]
        np.testing.assert_allclose(whole.forward(x, said)[:, straight], np.mean(before, axis=0)[:, straight], atol=1e-5)


class Bounds(unittest.TestCase):
    """However far out a row is, a forecast stays near what its experts say."""

    def setUp(self):
        self.names = [f"{what}_{span}s" for what in ("pages", "pages_of_bytes", "reads") for span in net.SPANS]
        self.names += [f"still_odds_{horizon}s" for horizon in HORIZONS] + [f"distinct_{horizon}s" for horizon in HORIZONS]
        self.experts = net.Experts(self.names)
        self.net = net.Net(len(self.names), (5, 3), 1, self.experts.near)
        self.x = np.abs(np.random.default_rng(1).standard_normal((50, len(self.names)))).astype(np.float32)

    def test_counts_and_odds_are_within_the_bounds_of_what_experts_say(self):
        for key in ("skip", "w3"):
            self.net.w[key] = self.net.w[key] * 1e6
        said = self.experts(self.x)
        z = self.net.forward(self.x * 1e3, said)[:, ASKED]
        least, most = said.values.min(axis=2) - net.BOUND, said.values.max(axis=2) + net.BOUND
        self.assertTrue((z >= least - 1e-3).all() and (z <= most + 1e-3).all())

    def test_while_writing_is_steady_or_experts_agree_they_are_followed(self):
        self.net.w["skip"] = self.net.w["skip"] + 1e6
        values = np.full((3, len(ASKED), self.net.w["w4"].shape[1] // len(ASKED)), 5.0, np.float32)
        apart = values.copy()
        apart[:, :, 0] = 9
        for said in (net.beside(values), net.beside(apart, 0)):
            z = self.net.forward(self.x[:3] * 1e3, said)[:, ASKED]
            over = (z - said.values.max(axis=2))[:, : COLUMNS["reads"].start - COLUMNS["pages"].start]
            self.assertLess(over.max(), 0.04)
        # Reads have no such measure, and what the experts of a bursty partition disagree on is open.
        over = (z - said.values.max(axis=2))[:, COLUMNS["reads"].start - COLUMNS["pages"].start :]
        self.assertGreater(over.max(), 0)
        z = self.net.forward(self.x[:3] * 1e3, net.beside(apart, 5))[:, ASKED]
        self.assertGreater((z - apart.min(axis=2)).min(), 1)

    def test_where_nothing_was_written_next_to_nothing_is_expected(self):
        self.net.w["skip"] = self.net.w["skip"] + 1e6
        z = self.net.forward(self.x, self.experts(np.zeros_like(self.x)))
        self.assertLess(np.expm1(z[:, COUNTS]).max(), 0.2)

    def test_an_expert_that_a_count_has_not_is_never_chosen(self):
        chosen = self.net.layers(self.x, self.experts(self.x))[3]
        self.assertEqual(chosen[:, -4:, len(HORIZONS):].max(), 0, "quiet has one for each horizon")
        np.testing.assert_allclose(chosen.sum(axis=2), 1, rtol=1e-5)


class Scores(unittest.TestCase):
    def test_small_cases_by_hand(self):
        truth = np.array([1, 1, 0, 0], bool)
        self.assertEqual(scores.f1(truth, truth), 1)
        self.assertEqual(scores.f1(truth, np.array([1, 0, 1, 0], bool)), 0.5)
        self.assertEqual(scores.best_threshold(truth, np.array([0.9, 0.6, 0.6, 0.1])), 0.6)
        self.assertEqual(scores.precision_at(truth, np.array([0.9, 0.2, 0.5, 0.1]), 1.0), 2 / 3)
        self.assertEqual(scores.top_share(np.array([3, 1, 0, 0]), np.array([9, 1, 2, 3]), 1), 0.75)
        self.assertEqual(scores.brier(truth, [1, 1, 0, 1]), 0.25)

    def test_an_interval_holds_the_value_and_is_wider_for_fewer_blocks(self):
        rng = np.random.default_rng(2)
        many, few = rng.normal(1, 1, 200), rng.normal(1, 1, 8)
        wide = scores.interval(list(few), np.mean)
        narrow = scores.interval(list(many), np.mean)
        self.assertTrue(narrow[0] < 1.2 and narrow[1] > 0.8)
        self.assertGreater(wide[1] - wide[0], narrow[1] - narrow[0])

    def test_splits_are_judged_where_the_trace_sees_their_horizon(self):
        at = np.repeat(np.arange(0, 3_000, 10), 2)
        key = np.tile([0, 1], 300)
        y = np.full((600, WIDTH), np.nan, np.float32)
        column = COLUMNS["p_split"].start
        # Partition 0 splits every 500 s, as whoever knows it says; of the other nothing comes.
        secs = np.where(key == 0, 500 - at % 500, np.nan)
        y[:, column] = np.where(secs <= 300, 1, np.where(at + 300 <= 3_000, 0, np.nan))
        y[:, COLUMNS["split_secs"].start] = secs
        truth = np.nan_to_num(y[:, column])
        nothing = np.zeros((600, WIDTH), np.float32)
        rows = SimpleNamespace(
            x=nothing, y=y, at=at, key=key, left=3_000 - at, weight=np.ones(600, np.float32), begin=0.3,
            baselines={name: nothing for name in ("persistence", "climatology", "linear", "ninety")},
            split=lambda share: [at[int(600 * share)]],
        )
        said = nothing.copy()
        said[:, column] = truth
        told = {one["score"]: one for one in judge.splits(rows, said)}
        self.assertEqual({name.rsplit(", ", 1)[1] for name in told}, {"300 s"}, "of the others nothing is known")
        share = truth[(at >= 900) & (at <= 2_700)].mean()
        brier = told["Brier of splits, 300 s"]
        self.assertEqual(brier["values"]["model"], 0)
        self.assertAlmostEqual(brier["values"]["linear"], share, places=3)
        self.assertEqual(told["recall of splits, 300 s"]["values"]["model"], 1)
        self.assertGreater(told["mean lead time of splits, 300 s"]["values"]["model"], 200)
        said[:, column] = 1
        told = {one["score"]: one for one in judge.splits(rows, said)}
        self.assertAlmostEqual(told["miscalibration of splits, 300 s"]["values"]["model"], 1 - share, places=3)
        self.assertAlmostEqual(told["precision of splits, 300 s"]["values"]["model"], share, places=3)

    def test_a_trace_too_short_for_a_window_has_no_score(self):
        at = np.repeat(np.arange(0, 200, 10), 2)
        y = np.ones((40, WIDTH), np.float32)
        rows = SimpleNamespace(y=y, at=at, begin=0.3, split=lambda share: [60])
        self.assertEqual(judge.written(rows, y, 300), [])
        self.assertEqual(judge.still(rows, y, 300), [])


if __name__ == "__main__":
    unittest.main()
