"""The notebooks run from the first cell to the last, with small sizes; what is stored is whole."""

import re
from pathlib import Path

import pytest
import torch

nbformat = pytest.importorskip("nbformat", reason="notebooks are read by nbformat")
nbclient = pytest.importorskip("nbclient", reason="notebooks are executed by nbclient")
pytest.importorskip("ipykernel", reason="notebooks are executed in a kernel of IPython")

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
TINY = (
    '{"model.width": 8, "model.latent_dim": 4, "training.steps": 12, "training.adapt_steps": 4, '
    '"training.eval_every": 4, "restoration.steps": 0, "screening.folds": 2, '
    '"screening.classifier_steps": 4, "recipe.min_label_probability": 0.0, '
    '"screening.near_copy_factor": 0.0, "screening.duplicate_factor": 0.0'
)
# The cell with the sizes is replaced; every name in it has to be given.
SMALL = {
    "tabular": "N_RARE = 20\nSTEPS = 4\nFOLDS, REPEATS = 2, 1",
    "signals": "COUNTS = [14, 13, 12, 11, 11, 10, 10, 10, 10, 10]\n"
    f'SETTINGS = {TINY}}}\nOUT = Path("runs/signals")',
    "rare_photos": "SIDE = 32\nN_RARE = 10\nCLASSIFIER_STEPS = 2\nWEIGHTS = Path('r18.pth')\n"
    f'SETTINGS = {TINY}}}\nOUT = Path("runs/photos")',
    "embeddings": "COUNTS = [12] * 5 + [10] * 5\nBACKBONE_STEPS, VIEWS = 4, 2\n"
    f'SETTINGS = {TINY}, "recipe.share": 0.5, "recipe.sampler": "delta"}}\n'
    'OUT = Path("runs/embeddings")',
}


def names_set(source: str) -> set[str]:
    """Names that a cell assigns to."""
    lines = re.findall(r"^([A-Z_, ]+) = ", source, re.M)
    return {name for line in lines for name in line.split(", ")}


def test_every_notebook_is_executed_here():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == SMALL.keys()


@pytest.mark.parametrize("name", SMALL)
def test_what_is_stored_is_small_and_whole(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(?:tmp|home|root|work)/", text), "a path of one machine"


# A kernel's sockets and its event loop are not closed at once when it is shut down.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (sizes,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    assert names_set(SMALL[name]) == names_set(sizes.source)
    sizes.source = SMALL[name]
    if "WEIGHTS" in SMALL[name]:  # a file as torchvision offers it, but of an untrained network
        torchvision = pytest.importorskip("torchvision")
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    nbclient.NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_progress_is_one_output_of_a_cell(tmp_path):
    cell = """
from vaeaug.progress import shown
for expected in (None, {"trunk": 3.0, "drawing": 2.0}):
    with shown(None, expected=expected) as report:
        for step in range(201):
            report("trunk", step, 200, {"held_out_elbo": 3.25})
        report("drawing <b>", 1, 2, {})
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    alone, in_all = (output["data"]["text/html"] for output in notebook.cells[0].outputs)
    assert "trunk: 200 of 200, ELBO 3.2" in alone
    assert "drawing &lt;b&gt;: 1 of 2" in alone
    assert alone.count("<progress") == 2
    assert "in all: done in " in in_all
    assert in_all.count("<progress") == 1
