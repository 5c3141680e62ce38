"""The rules of a good dashboard, as one function over its JSON. dashboard_test.py shows that each of them bites."""

import re

METRIC = re.compile(r"(?<![\w:$\"])((?:[a-z]+:)?lockstep_\w+(?::\w+)?|ALERTS)(\{[^}]*\})?")
GROUPED = re.compile(r"(?:by|on|ignoring|group_left|group_right) \(([^)]*)\)")
RATE = re.compile(r"\b(?:rate|irate|increase|delta|idelta|deriv)\(")
VARIABLES = ["datasource", "job", "instance", "run"]
# What Grafana 11 has: another kind of panel is an error on the screen, another unit is shown as its own name.
KINDS = {"timeseries", "stat", "bargauge", "table"}
UNITS = {"none", "percentunit", "s", "dateTimeFromNow", "ops", "reqps", "watt", "joule", "celsius", "hertz", "bytes", "Bps", "sci"}
# Labels that Prometheus adds itself.
BUILT_IN = {"job", "instance", "le", "alertname", "alertstate", "severity"}
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def panels_of(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def lint(boards, exported):
    """Complaints about `boards`, as "board / panel: what". `exported` names every metric with its labels."""
    return [*across(boards), *(complaint for board in boards for complaint in lint_board(board, exported))]


def across(boards):
    for what in ("title", "uid"):
        seen = [board.get(what) for board in boards]
        for twice in {value for value in seen if seen.count(value) > 1}:
            yield f"{twice}: two dashboards have this {what}"


def lint_board(board, exported):
    name = board.get("title", "?")
    if not re.fullmatch(r"lockstep-[a-z-]+", board.get("uid") or ""):
        yield f"{name}: uid is not lockstep-…"
    if "id" in board:
        yield f"{name}: has an id"
    variables = [variable["name"] for variable in board["templating"]["list"]]
    for wanted in VARIABLES:
        if wanted not in variables:
            yield f"{name}: has no variable {wanted}"
    for variable in board["templating"]["list"]:
        if not isinstance(variable.get("current"), dict):
            yield f"{name}: variable {variable['name']} has no current value, not even an empty one"
        if variable["type"] == "query":
            if variable["datasource"].get("uid") != "${datasource}":
                yield f"{name}: variable {variable['name']} names a data source"
            for metric, _ in METRIC.findall(variable["query"]["query"]):
                if metric not in exported:
                    yield f"{name}: variable {variable['name']} asks for {metric}, which is not exported"
    yield from lint_layout(name, board)
    titles = [panel.get("title") for panel in panels_of(board)]
    for panel in panels_of(board):
        where = f"{name} / {panel.get('title')}"
        if titles.count(panel.get("title")) > 1:
            yield f"{where}: two panels have this title"
        for complaint in lint_panel(panel, exported, variables):
            yield f"{where}: {complaint}"


def lint_layout(name, board):
    taken, numbers = set(), [panel["id"] for panel in board["panels"]]
    for panel in board["panels"]:
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        if cells & taken or box["x"] + box["w"] > 24:
            yield f"{name} / {panel['title']}: overlaps another panel or the edge"
        if numbers.count(panel["id"]) > 1:
            yield f"{name} / {panel['title']}: two panels have its id"
        taken |= cells


def lint_panel(panel, exported, variables):
    if not panel.get("title"):
        yield "no title"
    if not (panel.get("description") or "").endswith("."):
        yield "no description that is a sentence"
    if panel["type"] not in KINDS:
        yield f"there is no panel of type {panel['type']}"
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    unit = defaults.get("unit") or ""
    if not unit:
        yield "no unit"
    elif unit not in UNITS and not re.fullmatch(r"suffix:\S.*", unit):
        yield f"there is no unit {unit}"
    if panel["type"] == "bargauge" and "thresholds" not in defaults and "color" not in defaults:
        yield "its bars are red from 80 on"
    if (panel.get("datasource") or {}).get("uid") != "${datasource}":
        yield "names a data source"
    targets = panel.get("targets", [])
    if not targets:
        yield "asks nothing"
    if len({target["refId"] for target in targets}) != len(targets):
        yield "two queries have one refId"
    for target in targets:
        if target["datasource"].get("uid") != "${datasource}":
            yield "a query names a data source"
        yield from lint_query(target["expr"], target.get("legendFormat", ""), exported)
    for variable in re.findall(r"\$(\w+)", panel.get("title") or ""):
        if variable not in variables:
            yield f"there is no variable {variable}"


def lint_query(query, legend, exported):
    if not legend:
        yield "a query has no legend"
    named = METRIC.findall(query)
    if not named:
        yield "asks for no metric of ours"
    labels = set(BUILT_IN)
    for metric, matchers in named:
        if metric != "ALERTS" and metric not in exported:
            yield f"{metric} is not exported"
            continue
        own = exported.get(metric, set())
        labels |= own
        wanted = ['job="$job"', 'instance="$instance"', *(['run=~"$run"'] if "run" in own else [])]
        for matcher in wanted:
            if matcher not in matchers:
                yield f"{metric} lacks {matcher}"
    used = {label.strip() for group in GROUPED.findall(query) for label in group.split(",") if label.strip()}
    used |= set(re.findall(r"{{(\w+)}}", legend))
    for label in sorted(used - labels):
        yield f"no metric of the query has the label {label}"
    for window in re.findall(r"\[([^\]]*)\]", query):
        if window != "$__rate_interval":
            yield f"a window of {window} where $__rate_interval belongs"
    if len(RATE.findall(query)) != query.count("["):
        yield "a rate without a window"
    for metric, _ in named:
        if metric.endswith("_bucket") and "histogram_quantile(" not in query:
            yield f"{metric} without histogram_quantile"


def exported_metrics(text, rules):
    """{metric: labels} of a scrape's text and of the recording rules' text."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            found.setdefault(re.split(r"[{ ]", line)[0], set()).update(re.findall(r'[{,]([a-z_]+)="', line))
    for record in re.findall(r"- record: (\S+)", rules):
        found[record] = {"run": {"run"}, "gpu": {"gpu"}, "instance": set()}[record.split(":")[0]]
    return found
