"""Wrong files, as a user meets them: every refusal through the real programs, and nothing is started."""
import os
import re

import support

CORPUS = support.SOURCE / "tests" / "config" / "corpus" / "invalid"


class WrongFilesTest(support.Daemon):
    def files(self):
        files = sorted(CORPUS.glob("*.yaml"))
        self.assertGreaterEqual(len(files), 30)
        return files

    def check(self, file, done):
        said = done.stderr
        self.assertEqual(done.returncode, 2, f"{file.name}: {said}")
        self.assertRegex(said, re.escape(file.name) + r":\d+:\d+: ", file.name)

    def test_config_check_refuses_each_with_place_path_and_hint(self):
        for file in self.files():
            self.check(file, self.cli("config", "check", str(file), expect=None))

    def test_submit_refuses_each_and_starts_nothing(self):
        self.start_daemon()
        for file in self.files():
            self.check(file, self.cli("submit", str(file), expect=None))
        self.assertEqual(self.cli("list", "--ids").stdout, "")
        runs = self.state / "runs"
        self.assertEqual(os.listdir(runs) if runs.exists() else [], [])

    def test_the_trainer_refuses_by_itself(self):
        for file in self.files()[::10]:
            out = self.train(1, file, self.folder / "run", expect=2)
            self.assertRegex(out, re.escape(file.name) + r":\d+:\d+: ")
            self.assertFalse((self.folder / "run").exists())


if __name__ == "__main__":
    support.main()
