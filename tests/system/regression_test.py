"""A number read off a picture: a CSV file, a sweep of four runs through the daemon's queue, their comparison, a prediction."""
import json
import subprocess

import pictures
import support
from support import CLI, checkpoints, result


def sweep_config(labels, name, pool, dropout):
    """The small network that people tune: 32, 64 and 128 filters."""
    block = "{filters: %d, pool: " + pool + ", dropout: " + str(dropout) + "}"
    blocks = ", ".join(block % filters for filters in (32, 64, 128))
    return f"""name: {name}
seed: 5
resources: {{ranks: 2, threads_per_rank: 1}}
data: {{kind: csv_regression, path: {labels}, image_size: 32, split: [80, 20]}}
model: {{name: cnn, cnn: {{blocks: [{blocks}], global_pool: true, dense: [64], dropout: {dropout}}}}}
training: {{duration: 8ep, global_batch_size: 16, loss: {{name: huber}}, log_every_steps: 2}}
optimizer: {{name: adamw, learning_rate: 0.003}}
checkpoint: {{every: 4ep, best_metric: val_mae}}
"""


class RegressionTest(support.Daemon):
    def test_a_sweep_its_comparison_and_a_prediction(self):
        labels = pictures.diameters(self.folder / "discs", 120)
        self.start_daemon("--set", "slots=2")
        runs = {}
        for pool in ("max", "average"):
            for dropout in (0.0, 0.2):
                name = f"{pool}-{'dropout' if dropout else 'plain'}"
                runs[name] = self.submit(sweep_config(labels, name, pool, dropout))
        for run in runs.values():
            self.wait_state(run, "COMPLETED", timeout=240)
        for name, run in runs.items():
            measured = result(self.run_dir(run))["last_evaluation"]
            self.assertLess(measured["mae"], 20, name)  # Millimetres; the mean answer is off by 20.
            self.assertIn("r2", measured)
            evaluation = self.describe(run)["progress"]["last_evaluation"]
            self.assertAlmostEqual(evaluation["mae"], measured["mae"])
        compared = json.loads(self.cli("compare", *runs.values(), "-o", "json").stdout)
        text = json.dumps(compared)
        for word in ("pool", "dropout", "mae", "max", "average"):
            self.assertIn(word, text)
        table = self.cli("compare", *runs.values()).stdout
        for name in runs:
            self.assertIn(name, table)
        checkpoint = checkpoints(self.run_dir(runs["max-plain"]))[-1]
        picture = self.folder / "one.png"
        picture.write_bytes(pictures.spot(32, 0.6, (200, 200, 200), 99))
        done = subprocess.run([CLI, "predict", str(checkpoint), str(picture), "-o", "json"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("millimetres", done.stdout)


if __name__ == "__main__":
    support.main()
