"""The report in its three forms."""
import html.parser
import json
import unittest

from support import ok, over
from harness import page, report


def run():
    return {
        "date": "2020-01-01T00:00:00Z", "seconds": 1, "host": {"cpu": "A <CPU> & more", "cpus": 2, "kernel": "6", "load_before": "0.1", "load_after": "0.2"},
        "kernel": "linux-image", "memory": 1024, "options": {"rounds": 2, "scale": 1, "limit": 60, "only": None}, "versions": {"trapline": "1", "qemu": "7.2"},
        "measured": {
            "native": {"alu": ok(0.020, 0.022, checksum="a"), "chase": ok(0.1, 0.1), "matrix-fma": ok(0.005, 0.005)},
            "translate": {"alu": ok(0.040, 0.044, checksum="a"), "chase": ok(0.1, 0.2), "matrix-fma": ok(0.010, 0.010)},
            "qemu": {"alu": ok(0.160, 0.200, checksum="a"), "chase": ok(0.2, 0.2), "matrix-fma": over(2)},
        },
        "not_run": ["bochs: not asked for"], "failures": [],
    }


class Balance(html.parser.HTMLParser):
    """Every element that is opened is closed, in order; the text is kept."""
    VOID = {"meta", "line", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open, tag)
        self.open.pop()

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        self.text += data


class Text(unittest.TestCase):
    def test_times_ratios_and_means(self):
        lines = {line.split()[0]: line for line in report.text(run()).splitlines() if line.strip()}
        self.assertRegex(lines["alu"], r"21 ms +42 ms +180 ms +2\.00 \(2\.00\.\.2\.00\) +8\.57 .* 4\.29 \(4\.00\.\.4\.55\)")
        self.assertRegex(lines["matrix-fma"], r"over 60 s .*>6000")
        self.assertIn("geometric", lines)
        self.assertIn("bochs: not asked for", report.text(run()))

    def test_bars(self):
        text = report.text(run())
        self.assertRegex(text, r"Integer and memory: smallest +1\.33 +at least 1 +not measured")
        self.assertRegex(text, r"Floating point: geometric mean +6000 +at least 15 +not measured +without matrix-sse")

    def test_differing_checksums_are_shouted(self):
        data = run()
        data["measured"]["qemu"]["alu"][1].checksum = "b"
        self.assertIn("CHECKSUMS DIFFER: alu: native, translate, qemu: a; qemu: b", report.text(data))
        self.assertNotIn("CHECKSUMS DIFFER", report.text(run()))


class Json(unittest.TestCase):
    def test_holds_the_measurements_and_bars(self):
        data = json.loads(report.as_json(run()))
        self.assertEqual([r["seconds"] for r in data["measured"]["qemu"]["alu"]], [0.160, 0.200])
        self.assertEqual(data["measured"]["qemu"]["matrix-fma"][0]["status"], "over")
        self.assertTrue(any(bar["name"].startswith("Floating point") for bar in data["bars"]["translate"]))


class Page(unittest.TestCase):
    def test_is_well_formed_and_self_contained(self):
        text = page.html(run())
        parser = Balance()
        parser.feed(text)
        self.assertEqual(parser.open, [])
        self.assertIn("A <CPU> & more", parser.text)  # escaped, so it comes out as it was
        self.assertEqual(text.count("<svg"), 2)
        for outside in ("http://", "https://", "src=", "@import"):
            self.assertNotIn(outside, text)

    def test_an_empty_run(self):
        data = run()
        data["measured"] = {"native": {}}
        parser = Balance()
        parser.feed(page.html(data))
        self.assertEqual(parser.open, [])
        report.text(data)


unittest.main()
