"""The lesson's own pages in a browser: every explorable by keys and mouse, runs, both themes."""

from slow.browser import NOTEBOOKS, RUN, Cell, Lab

LONG = 300  # seconds: a page with all its training, on two busy cores


def opened(lab: Lab, page: str) -> Lab:
    lab.open(NOTEBOOKS / f"{page}.ipynb")
    lab.run_all(timeout=LONG)
    return lab


def starts(cell: Cell, told: str = "training: ", *, timeout: float = 60) -> None:
    cell.click("Start")
    cell.expect_text(told, timeout=timeout)


def grows(cell: Cell, *, times: int = 2) -> None:
    """The first picture is drawn again and again while a run is alive."""
    for _ in range(times):
        cell.wait_for_change(cell.picture_src(), timeout=60)


def stops(cell: Cell) -> None:
    cell.click("Stop")
    cell.expect_text("stopped after ", timeout=60)


def training(lab: Lab) -> Cell:
    """The trainer of page 01 with a run alive, opened by the cells that it needs alone."""
    lab.open(NOTEBOOKS / "01_full_finetuning.ipynb")
    lab.run("import lorakit as lk")
    trainer = lab.run("trainer = FinetuneExplorer(run)")
    starts(trainer)
    return trainer


def moves(cell: Cell, label: str, *, key: str = "ArrowRight", pictures: tuple[int, ...] = (0,)):
    """A key on a control changes these pictures and the lines under them, another undoes it."""
    back = {"ArrowRight": "ArrowLeft", "ArrowLeft": "ArrowRight"}[key]
    before = [cell.picture_text(number) for number in pictures]
    for step in (key, back):
        sources = [cell.picture_src(number) for number in pictures]
        cell.press(label, step)
        for source, number in zip(sources, pictures, strict=True):
            cell.wait_for_change(source, number)
        cell.lab.wait_until_idle()
    assert [cell.picture_text(number) for number in pictures] == before


def test_the_first_page_shakes_hands_and_measures_this_machine(lab):
    opened(lab, "00_start_here")
    hand = lab.cell("hand = Handshake()")
    moves(hand, "move me")
    with hand.changing():
        hand.drag("move me", 80)
    hand.expect_picture_text(f"you moved it to {hand.value('move me')}")
    pace = lab.cell("pace = PaceExplorer(run)")
    with pace.changing(timeout=LONG):
        pace.click("Measure again")
    assert "60 steps on CPU" in pace.picture_text()
    lab.check()


def test_full_fine_tuning_is_mapped_billed_started_and_stopped(lab):
    opened(lab, "01_full_finetuning")
    steps = lab.cell("steps = StepExplorer(run)")
    moves(steps, "steps")
    with steps.changing(timeout=LONG):
        steps.click("lora")
    assert "(43,008 in B)" in steps.picture_text()
    memory = lab.cell("memory = MemoryExplorer(")
    moves(memory, "batch size", key="ArrowLeft")
    moves(memory, "rank")
    trainer = lab.run("trainer = FinetuneExplorer(run)")
    starts(trainer)
    grows(trainer)
    stops(trainer)
    lab.check()


def test_lora_is_counted_measured_compared_and_rescaled(lab):
    opened(lab, "02_lora_from_scratch")
    parameters = lab.cell('parameters = widgets.ParametersExplorer("mini"')
    moves(parameters, "rank", pictures=(0, 1))
    with parameters.changing(1):
        parameters.choose("model", "llama-3-70b")
    assert "of 70,553,706,496 parameters train" in parameters.picture_text()
    source = parameters.picture_src()
    parameters.press("alpha", "ArrowRight")
    parameters.expect_text("alpha / rank = 4")
    assert parameters.picture_src() == source, "alpha changes words alone"
    spectrum = lab.cell("spectrum = widgets.SpectrumExplorer(")
    moves(spectrum, "cut at rank")
    with spectrum.changing():
        spectrum.choose("layer", "0.self_attn.q_proj")
    with spectrum.changing():
        spectrum.press("alpha", "ArrowRight")
    spectrum.expect_text("rescaled, not retrained")
    with spectrum.changing():
        spectrum.drag("cut at rank", -60)
    lab.check()


def test_a_second_run_is_refused_while_one_is_alive(lab):
    lab.open(NOTEBOOKS / "02_lora_from_scratch.ipynb")
    lab.run("import lorakit as lk")
    full = lab.run("full = widgets.FinetuneExplorer(")
    lora = lab.run("lora = widgets.FinetuneExplorer(run)")
    starts(full)
    lora.click("Start")
    lora.expect_text("a run is alive: press its Stop")
    stops(full)
    starts(lora)
    stops(lora)
    lab.check()  # the refusal is gone from the page


def test_a_cell_run_again_takes_its_earlier_explorable_off_and_stops_its_run(lab):
    trainer = training(lab)
    trainer = lab.run("trainer = FinetuneExplorer(run)")
    trainer.expect_text("not started")
    starts(trainer)
    stops(trainer)
    lab.check()


def test_stop_works_while_a_cell_waits_for_the_run(lab):
    trainer = training(lab)
    waiting = lab.cell("result = trainer.result or trainer.train(wait=True)")
    lab.page.evaluate(RUN, ["notebook:run-cell", waiting.index])
    stops(trainer)
    waiting.expect_text("that run was stopped: press Start again")


def test_pictures_follow_the_dark_theme(lab):
    opened(lab, "00_start_here")
    hand = lab.cell("hand = Handshake()")
    assert hand.picture_filter() == "none"
    hand.screenshot("handshake-light")
    lab.set_theme("JupyterLab Dark")
    assert "invert" in hand.picture_filter()
    hand.screenshot("handshake-dark")


def test_a_step_is_held_against_a_budget_and_watched_while_it_runs(lab):
    opened(lab, "05_memory")
    fit = lab.cell("fit = widgets.BudgetExplorer(")
    for label in ("rank", "batch size", "budget, GB"):
        with fit.changing():
            fit.press(label, "ArrowLeft")
    fit.expect_text("Largest batch within 30 MB")
    fit.screenshot("budget")
    live = lab.run("live = widgets.LiveMemoryExplorer(")
    starts(live)
    live.screenshot("live-memory")
    lab.set_theme("JupyterLab Dark")
    fit.screenshot("budget-dark")
    lab.check()


def test_a_delta_is_cut_until_its_answers_break(lab):
    opened(lab, "03_how_big_is_the_change")
    cut = lab.cell("cut = widgets.TruncationExplorer(full)")
    cut.screenshot("truncation")
    with cut.changing(), cut.changing(1):
        cut.press("rank", "Home")
    cut.expect_text("rank 0 of 128", timeout=60)
    overlap = lab.cell("overlap = widgets.OverlapExplorer(few, many)")
    with overlap.changing(), overlap.changing(1):
        overlap.choose("layer", "0.self_attn.q_proj")
    overlap.screenshot("overlap")
    lab.check()


def test_a_sweep_is_scrubbed_through_and_a_cell_of_it_is_run_again(lab):
    opened(lab, "07_when_full_wins")
    when = lab.cell("when = widgets.WhenFullWinsExplorer()")
    moves(when, "examples", key="ArrowLeft", pictures=(0, 1))
    with when.changing():
        when.press("rank", "ArrowRight")
    when.screenshot("when-full-wins")
    when.click("Measure my own point")
    when.expect_text("of 40", timeout=60)
    when.click("Stop")
    when.expect_text("stopped", timeout=60)
    targets = lab.cell('targets = widgets.SweepExplorer("targets")')
    with targets.changing():
        targets.choose("measure", "exact match")
    with targets.changing():
        targets.press("learning rate", "ArrowRight")
    targets.screenshot("sweep")
    lab.check()
