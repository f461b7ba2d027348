"""How a stage looks on a page, and its keys: what the browser does by itself.

Sizes are for a wall of 1280 x 720 pixels; a larger or smaller one changes everything, letters and
pictures alike, by the same factor. An explorable has its controls side by side, where two fit into
a row, and is shrunk until it fits if it is still taller than the wall.
"""

WALL = 1280, 720
PANE = 905  # pixels of the wall's width that an explorable has
SMALLEST = 0.6  # below that letters could not be read: the rest is scrolled to

STYLE = """<style>
.stage { --jp-widgets-font-size: 16px; zoom: var(--stage-zoom, 1); overflow: hidden;
    position: fixed; top: 0; left: 0; width: var(--stage-width, 100%);
    height: var(--stage-height, auto); padding: 6px 14px; box-sizing: border-box; }
.stage-keys { margin-left: auto; flex: 0 0 auto; }
.stage-window { flex: 1 1 0; min-height: 0; }
.stage-frame, .stage-frame > .widget-hbox { height: 100%; width: 100%; }
.stage-asked { flex: 1 1 0; overflow: auto; padding-right: 8px; --jp-widgets-font-size: 28px;
    --jp-widgets-inline-height: 52px; }
.stage-asked h2 { font-size: 38px; line-height: 1.2; margin: 8px 0 16px; }
.stage-asked > .widget-hbox { align-items: flex-start; margin-bottom: 14px; overflow: visible;
    flex: 0 0 auto; }
.stage-asked .widget-text { flex: 0 0 150px; }
.stage-asked .widget-text label { width: 34px; flex: 0 0 auto; font-weight: bold; }
.stage-asked .widget-html { height: auto; flex: 1 1 auto; }
.stage-asked > .widget-html { flex: 0 0 auto; }
.stage-asked .widget-html-content, .stage-asked p { font-size: 28px; line-height: 1.3; }
.stage-option { padding: 4px 10px 8px; }
.stage-bar { height: 16px; margin-top: 4px; }
.stage-pane { display: none; }
.stage-revealed .stage-pane { display: flex; flex: 0 0 PANEpx; overflow: auto; }
.stage-pane > .widget-vbox, .stage-pane > .widget-vbox > * { flex: 0 0 auto; }
.stage-pane > .widget-vbox { width: PANEpx; flex-flow: row wrap; align-content: flex-start;
    align-items: center; }
.stage-pane > .widget-vbox > .widget-vbox { width: 100%; }
.stage-pane > .widget-vbox > .widget-html { width: 100%; min-height: 0 !important; }
.stage-pane .job-line { width: auto !important; flex: 1 1 0 !important; }
.stage-pane .widget-toggle-buttons { width: auto; flex-flow: row nowrap; }
.stage-pane .widget-label { min-width: max-content; }
.stage-pane .jupyter-widgets.figure-words { font-size: 19px; line-height: 1.35; }
.stage-revealed .stage-asked { --jp-widgets-font-size: 17px; --jp-widgets-inline-height: 30px; }
.stage-revealed .stage-asked h2 { font-size: 22px; margin: 4px 0 8px; }
.stage-revealed .stage-asked > .widget-hbox { margin-bottom: 4px; }
.stage-revealed .stage-asked .widget-text { flex-basis: 92px; }
.stage-revealed .stage-asked .widget-text label { width: 22px; }
.stage-revealed .stage-asked .widget-html-content, .stage-revealed .stage-asked p {
    font-size: 19px; line-height: 1.25; }
</style>""".replace("PANE", str(PANE))

# PageUp and PageDown, which a presenter's clicker sends, turn frames wherever the focus is; arrows
# are left to a slider or a field that has it.
KEYS = """
window.stageKeys?.abort();
window.stageKeys = new AbortController();
const until = {signal: window.stageKeys.signal, capture: true};
const page = document.documentElement;
function fit() {
    const zoom = Math.max(SMALLEST, Math.min(innerWidth / WIDTH, innerHeight / HEIGHT));
    page.style.setProperty("--stage-zoom", zoom);
    page.style.setProperty("--stage-width", `${innerWidth / zoom}px`);
    page.style.setProperty("--stage-height", `${innerHeight / zoom}px`);
}
fit();
addEventListener("resize", fit, until);
function shrink() {
    const pane = document.querySelector(".stage-revealed .stage-pane");
    const made = pane?.firstElementChild;
    if (!made) return;
    const now = Number(made.style.zoom) || 1;
    const whole = made.getBoundingClientRect().height / now;
    const most = pane.getBoundingClientRect().height / whole;
    const zoom = Math.max(SMALLEST, Math.min(1, most));
    if (Math.abs(zoom - now) > 0.005) made.style.zoom = zoom;
}
const shrinking = setInterval(shrink, 200);  // an explorable grows while it runs
window.stageKeys.signal.addEventListener("abort", () => clearInterval(shrinking));
const EVERYWHERE = {PageDown: ".stage-next", PageUp: ".stage-back"};
const ARROWS = {ArrowRight: ".stage-next", ArrowLeft: ".stage-back"};
const LETTERS = {r: ".stage-reveal", l: ".stage-revealed .stage-pane button.mod-primary",
    s: ".stage-revealed .stage-pane button.job-stop"};
addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = event.target;
    if (event.key === "Escape") return at.blur();
    const number = at.type === "number";  // takes no letter
    const pressed = event.key?.toLowerCase() ?? "";
    const field = at.isContentEditable || at.closest("input, select, textarea");
    const key = EVERYWHERE[event.key] ?? (field && !number ? null : LETTERS[pressed])
        ?? (field || at.closest(".noUi-handle") ? null : ARROWS[event.key]);
    const count = field && !number ? null : document.querySelector(
        `.stage-asked .stage-count-${CSS.escape(pressed)} input`);
    if (!key && !count) return;
    event.preventDefault();
    event.stopPropagation();
    if (key) {
        if (number) at.blur();  // so that arrows turn frames again
        return document.querySelector(key)?.click();
    }
    count.focus();
    count.select();
}, until);
"""
for name, number in {"WIDTH": WALL[0], "HEIGHT": WALL[1], "SMALLEST": SMALLEST}.items():
    KEYS = KEYS.replace(name, str(number))
