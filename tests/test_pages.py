"""Every page says where the lab is kept as pyproject.toml does: its first code cell, its badge."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
HERE = "https://github.com/owner/the-lab"

_spec = importlib.util.spec_from_file_location("pages", ROOT / "benchmarks/pages.py")
assert _spec and _spec.loader
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

ADDRESSES = pytest.mark.parametrize("where", [None, HERE], ids=["unset", "set"])


# The lesson's own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_where_the_lab_is_kept(page):
    notebook = nbformat.read(page, as_version=4)
    told = pages.with_cell(notebook, pages.address(), page.name)
    assert nbformat.writes(told) == nbformat.writes(notebook), "run python benchmarks/pages.py"


def test_the_readme_says_it_too():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert pages.readme(text, pages.address()) == text


@ADDRESSES
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_stays_in_the_style_of_the_others(page, where):
    notebook = pages.with_cell(nbformat.read(page, as_version=4), where, page.name)
    nbformat.validate(notebook)
    name = f"notebooks/{page.name}"
    for words in (["check"], ["format", "--check"]):
        command = [
            sys.executable,
            "-m",
            "ruff",
            *words,
            "--no-cache",
            "--stdin-filename",
            name,
            "-",
        ]
        text = nbformat.writes(notebook)
        run = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout


# The cell


@ADDRESSES
def test_the_cell_is_short(where):
    assert len(pages.cell(where).splitlines()) <= 14


@ADDRESSES
def test_the_cell_says_nothing_where_there_is_no_colab(where):
    run = subprocess.run([sys.executable, "-c", pages.cell(where)], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.fixture
def page():
    """Two cells, both run."""
    head = new_markdown_cell("# Title\n\nAbout a minute.", id="a")
    return new_notebook(cells=[head, new_code_cell("x = 1", id="b", execution_count=1)])


def sources(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells]


@ADDRESSES
def test_the_cell_is_the_first_of_code_and_the_rest_stays(page, where):
    told = pages.with_cell(page, where, "00.ipynb")
    assert sources(told)[1:] == [pages.cell(where), "x = 1"]
    assert sources(page) == ["# Title\n\nAbout a minute.", "x = 1"]


def test_the_cell_is_marked_for_those_who_take_a_page_apart(page):
    assert "colab" in pages.with_cell(page, None, "00.ipynb").cells[1].metadata.tags


@pytest.mark.parametrize("then", [None, HERE, "https://example.org/other"])
def test_told_again_it_is_told_once_and_anew(page, then):
    once = pages.with_cell(page, "https://github.com/another/place", "00.ipynb")
    once.cells[1].execution_count = 1
    again = pages.with_cell(once, then, "00.ipynb")
    fresh = pages.with_cell(page, then, "00.ipynb")
    assert sources(again) == sources(fresh)
    assert again.cells[1].execution_count == 1, "it was run, and shows nothing either way"
    assert fresh.cells[1].execution_count is None


def test_a_page_without_a_title_is_refused_by_name():
    with pytest.raises(ValueError, match=r"07\.ipynb does not begin with a title"):
        pages.with_cell(new_notebook(cells=[new_code_cell("x")]), None, "07.ipynb")


# The badge


def test_the_badge_opens_this_very_page_under_its_title(page):
    head = pages.with_cell(page, HERE, "05_memory.ipynb").cells[0].source
    title, badge, rest = head.split("\n\n")
    assert (title, rest) == ("# Title", "About a minute.")
    colab = "https://colab.research.google.com/github/owner/the-lab/blob/main/notebooks"
    assert badge.startswith("[![Open in Colab](") and badge.endswith(f"]({colab}/05_memory.ipynb)")


@pytest.mark.parametrize("where", [None, "https://example.org/owner/lab"])
def test_where_colab_cannot_open_a_page_there_is_no_badge(page, where):
    assert sources(pages.with_cell(page, where, "00.ipynb"))[0] == "# Title\n\nAbout a minute."


@pytest.mark.parametrize("end", ["", "/", ".git"])
def test_the_end_of_an_address_does_not_matter(end):
    assert pages.opened(HERE + end, "00.ipynb") == pages.opened(HERE, "00.ipynb")


# The address, and the README


def project(folder: Path, urls: str) -> Path:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "lab"\n{urls}')
    return folder


def test_the_address_stands_in_the_project_alone(tmp_path):
    assert pages.address(project(tmp_path, f'[project.urls]\nRepository = "{HERE}"')) == HERE
    assert pages.address(project(tmp_path, "")) is None
    assert pages.address(project(tmp_path, f'[project.urls]\nDocumentation = "{HERE}"')) is None


@pytest.mark.parametrize(
    "wrong", ["", "git@github.com:owner/lab.git", "github.com/owner/lab", f"{HERE} && true"]
)
def test_an_address_that_strangers_cannot_clone_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"Repository is .* it has to begin with https://"):
        pages.address(project(tmp_path, f'[project.urls]\nRepository = "{wrong}"'))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (None, "this copy of the lab does not say where it is kept"),
        (HERE, "github/owner/the-lab/blob/main/notebooks/00_start_here.ipynb"),
        ("https://example.org/lab", "fetches the lab from https://example.org/lab"),
    ],
)
def test_the_readme_has_one_line_on_it(where, words):
    text = "A.\n\n**Colab:** soon.\n\nB.\n"
    fresh = pages.readme(text, where)
    assert words in fresh.splitlines()[2]
    assert fresh.replace(fresh.splitlines()[2], "**Colab:** soon.") == text
    assert pages.readme(fresh, where) == fresh


@pytest.mark.parametrize("text", ["", "**Colab:** a.\n**Colab:** b.\n"])
def test_a_readme_without_just_one_line_is_refused(text):
    with pytest.raises(ValueError, match=r"the README has [02] lines"):
        pages.readme(text, None)


@pytest.fixture
def lesson(tmp_path, page) -> Path:
    project(tmp_path, f'[project.urls]\nRepository = "{HERE}"')
    (tmp_path / "README.md").write_text("**Colab:** soon.\n")
    (tmp_path / "notebooks").mkdir()
    for name in ("00.ipynb", "01.ipynb"):
        nbformat.write(page, tmp_path / "notebooks" / name)
    return tmp_path


def test_one_command_tells_all_and_the_second_time_nothing(lesson, capsys):
    pages.write(lesson)
    assert capsys.readouterr().out.count("written: ") == 3
    assert "owner/the-lab" in (lesson / "README.md").read_text()
    assert "owner/the-lab" in (lesson / "notebooks/01.ipynb").read_text()
    pages.write(lesson)
    assert capsys.readouterr().out == ""


def test_a_page_that_is_refused_leaves_every_file_as_it_was(lesson):
    nbformat.write(new_notebook(cells=[new_code_cell("x", id="a")]), lesson / "notebooks/01.ipynb")
    before = {path: path.read_bytes() for path in lesson.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="01"):
        pages.write(lesson)
    assert {path: path.read_bytes() for path in before} == before
