"""How a report looks: on a wide screen, on a phone, light, dark and on paper."""

STYLE = """
:root { --accent: light-dark(#2f6fb0, #7fb2dd); --faint: light-dark(#5b636e, #9aa3ae);
  --card: light-dark(#f6f8fa, #1e2127); --line: light-dark(#dfe4ea, #33373e);
  --prepare: #8e5ea2; --tune: #c0392b; --train: #2f6fb0; --evaluate: #ee8f3a;
  --export: #2e8b63 }
* { box-sizing: border-box }
html { scroll-behavior: smooth }
body { max-width: 1180px; margin: 0 auto; padding: 2.4em 1.4em 5em; overflow-wrap: anywhere }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 .3em }
h2 { font-size: 22px; margin: 2.4em 0 .3em; padding-top: .5em; border-top: 1px solid var(--line) }
h3 { font-size: 16px; margin: 1.6em 0 .4em }
p { color: var(--faint); max-width: 78ch }
a { color: var(--accent) }
code { font: 12.5px/1.5 ui-monospace, monospace; background: var(--card); padding: 1px 5px;
  border-radius: 4px }
pre { font: 12.5px/1.5 ui-monospace, monospace; background: var(--card); padding: 10px 14px;
  border-radius: 8px; white-space: pre-wrap; margin: .4em 0 }
nav { display: flex; flex-wrap: wrap; gap: .2em 1.2em; margin: 1.2em 0 0; font-size: 14px }
nav a { text-decoration: none }
.lead { font-size: 17px }
.warning { color: inherit; background: light-dark(#fff4e0, #3a2d14); padding: .7em 1em;
  border-left: 4px solid #ee8f3a; border-radius: 4px; max-width: none }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 12px;
  margin: 1.4em 0 0; padding: 0 }
.facts > div { background: var(--card); border-radius: 10px; padding: 12px 16px }
.facts dt { font-size: 12px; letter-spacing: .06em; text-transform: uppercase;
  color: var(--faint) }
.facts dd { margin: .15em 0 0 }
.wide { overflow-x: auto; margin: .8em 0 }
.wide:focus-visible { outline: 2px solid var(--accent) }
table { font-size: 13.5px; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; color: var(--faint); padding: 0 0 .5em; font-size: 13px }
th, td { padding: 7px 9px; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { font-size: 12px; color: var(--faint); vertical-align: bottom;
  border-bottom: 2px solid var(--line) }
tbody th { font-weight: 600; white-space: nowrap; position: sticky; left: 0;
  background: var(--paper) }
td { white-space: nowrap }
.words td, .words th { text-align: left; white-space: normal }
.words td:last-child { min-width: 34ch }
.words a { white-space: nowrap }
td small, th small, td em { display: block; font-size: 12px; font-weight: 400;
  color: var(--faint) }
sup { font-size: 9px; line-height: 0; margin-left: 1px }
.missing { color: light-dark(#b45309, #f0b35e) }
.notes { font-size: 12.5px; color: var(--faint); padding-left: 1.6em; margin: .4em 0 }
.commands { list-style: none; padding: 0; margin: .5em 0; font-size: 13.5px }
.commands li { margin: .35em 0 }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .2em 1.3em; padding: 0;
  margin: .6em 0; font-size: 13.5px }
.key b { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; vertical-align: -1px }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr));
  gap: 18px 24px; align-items: start }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 18px 24px; align-items: start }
figure { margin: .6em 0; min-width: 0 }
figcaption { font-size: 13px; color: var(--faint); margin-top: .3em }
.drawing { width: 100%; height: auto; display: block }
.large { overflow-x: auto }
.large .drawing { min-width: 720px }
.medium { overflow-x: auto }
.medium .drawing { min-width: 460px }
.pipeline { list-style: none; display: grid; gap: 16px 34px; padding: 0; margin: 1em 0;
  grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)) }
.pipeline li { position: relative; background: var(--card); border: 1px solid var(--line);
  border-top: 3px solid var(--accent); border-radius: 10px; padding: 10px 14px }
.pipeline li:not(:last-child)::after { content: "\\2192"; position: absolute; right: 12px;
  top: 8px; font-size: 18px; color: var(--faint) }
.pipeline h3 { margin: 0 0 .3em; font-size: 14.5px }
.pipeline p { margin: .15em 0; font-size: 13px }
.pipeline .idle { border-style: dashed; background: none }
.gantt { margin: .6em 0 1em }
.row { display: grid; grid-template-columns: 150px 1fr; gap: 12px; align-items: center;
  margin: 5px 0; font-size: 13.5px }
.row > div { position: relative; height: 22px; background: var(--card); border-radius: 4px }
.row > div b { position: absolute; top: 2px; bottom: 2px; min-width: 2px; border-radius: 3px }
.axis { color: var(--faint); font-size: 12px }
.axis > div { background: none; border-top: 1px solid var(--line) }
.axis i { position: absolute; white-space: nowrap; top: 2px; font-style: normal; padding-left: 3px;
  border-left: 1px solid var(--faint) }
.axis .late { transform: translateX(-100%); padding: 0 3px 0 0; border-left: 0;
  border-right: 1px solid var(--faint) }
.prepare { background: var(--prepare) } .tune { background: var(--tune) }
.train { background: var(--train) } .evaluate { background: var(--evaluate) }
.export { background: var(--export) }
details { border: 1px solid var(--line); border-radius: 12px; margin: 1em 0; padding: 0 20px }
summary { cursor: pointer; padding: 14px 0; font-size: 17px; font-weight: 600 }
summary small { font-weight: 400; color: var(--faint); margin-left: .6em }
details[open] { padding-bottom: 18px }
.photographs { width: 100%; max-width: 780px; border-radius: 8px; display: block }
@media (max-width: 640px) {
  body { padding: 1.4em 1em 3em }
  h1 { font-size: 25px }
  .pipeline { grid-template-columns: 1fr; gap: 26px }
  .pipeline li:not(:last-child)::after { content: "\\2193"; right: auto; left: 48%; top: auto;
    bottom: -25px }
  .row { grid-template-columns: 1fr; gap: 2px }
  details { padding: 0 12px }
  tbody th { white-space: normal }
}
@media print {
  :root { color-scheme: light }
  * { print-color-adjust: exact }
  @page { size: A4 landscape; margin: 12mm }
  body { max-width: none; padding: 0; font-size: 11px }
  nav { display: none }
  .wide, .large, .medium { overflow: visible }
  .large .drawing, .medium .drawing { min-width: 0 }
  .photographs { width: auto; max-height: 165mm }
  .pair { grid-template-columns: 1fr 1fr }
  .grid { grid-template-columns: 1fr 1fr 1fr }
  .pipeline { grid-template-columns: repeat(4, 1fr) }
  .wide table { font-size: 8.5px; width: 100% }
  .wide th, .wide td { padding: 3px 4px; white-space: normal }
  td small, th small, td em, thead th { font-size: 8px }
  tbody th { position: static }
  details { border: 0; padding: 0 }
  details::details-content { content-visibility: visible; block-size: auto }
  figure, .pipeline li, .facts > div, tr { break-inside: avoid }
  h2, h3, summary { break-after: avoid }
}
"""
