// The style of the page of `trapline compare`.
#pragma once

namespace trapline::compare {

inline constexpr const char* kPageStyle = R"css(
:root {
  color-scheme: light dark;
  --bg: #f4f5f2; --panel: #fff; --ink: #1c2321; --soft: #5f6965; --line: #dfe3de; --hover: #eef3ef;
  --boot: #0d7a6f; --rest: #7fb8ae; --interpreted: #8a94a0; --inlined: #2a9d8f; --called: #d98a12;
  --trapped: #d1344b; --direct: #5b7fd1; --memory: #8a6fb8; --critical: #c22a41; --privileged: #a8670a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #111614; --panel: #1a211e; --ink: #e6ece8; --soft: #9aa6a1; --line: #2b3531; --hover: #222b27;
    --boot: #4fc4b5; --rest: #2f6f66; --interpreted: #7b8794; --inlined: #3fb8a8; --called: #f2b04a;
    --trapped: #ff5d73; --direct: #7f9ff0; --memory: #a78bd8; --critical: #ff7587; --privileged: #f2b04a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
header, main { padding: 1rem clamp(1rem, 4vw, 3rem); max-width: 76rem; margin: 0 auto; }
h1 { font-size: 1.45rem; margin: .6rem 0 .2rem; }
h2 { font-size: 1.05rem; margin: 0 0 .2rem; }
h3 { font-size: .92rem; margin: 0 0 .1rem; font-weight: 600; }
header p, .hint { color: var(--soft); margin: 0 0 .7rem; overflow-wrap: anywhere; }
.hint { font-size: .88rem; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 14px; padding: 1rem 1.1rem; margin: 0 0 1rem; }
.verdict { border-left: 6px solid var(--inlined); }
.verdict.bad { border-left-color: var(--trapped); }
.verdict p { margin: .2rem 0; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, "DejaVu Sans", sans-serif; }
svg .name, svg .label { fill: var(--ink); } svg .tick { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); } svg .whisker { stroke: var(--ink); fill: none; stroke-width: 1.2; }
svg .point { fill: var(--panel); stroke: var(--ink); stroke-width: 1.1; }
.boot { fill: var(--boot); background: var(--boot); } .rest { fill: var(--rest); background: var(--rest); }
.interpreted { fill: var(--interpreted); background: var(--interpreted); }
.inlined { fill: var(--inlined); background: var(--inlined); }
.called { fill: var(--called); background: var(--called); }
.trapped { fill: var(--trapped); background: var(--trapped); }
.direct { fill: var(--direct); background: var(--direct); } .memory { fill: var(--memory); }
.parts { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: .9rem 1.4rem; }
.parts svg { font-size: 13px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .84rem; color: var(--soft); margin: 0 0 .5rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .35rem; vertical-align: -.08rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .22rem .55rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child, td.left, th.left { text-align: left; }
tbody tr:hover { background: var(--hover); }
td.class-critical { color: var(--critical); } td.class-privileged { color: var(--privileged); }
.way { display: flex; height: .32rem; border-radius: 3px; overflow: hidden; min-width: 5rem; margin-top: .1rem; }
.way i { display: block; }
details > summary { cursor: pointer; color: var(--soft); margin: .7rem 0 .4rem; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1rem; margin: 0; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } }
)css";

}  // namespace trapline::compare
