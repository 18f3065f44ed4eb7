"""Notebook 08 in a real kernel, as JupyterLab runs it: its controls are moved, and answer."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.util import run_sync

from helpers.engine import catalogue, kernel, places


@pytest.fixture(scope="module")
def lab(smoke):
    """A client whose kernel has run all cells of notebook 08, cached, on the smoke world."""
    notebook = nbformat.read(catalogue.notebooks()["08"], as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('"pocket"', '"smoke"', 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_RUNS", str(smoke[0] / "runs"))
        patch.setenv("STUDY_FIGURES", str(smoke[0] / "lab"))
        with kernel.started(str(places.NOTEBOOKS)) as manager:
            client = NotebookClient(notebook, km=manager, timeout=300)
            with client.setup_kernel(cleanup_kc=False):
                for index, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, index)
                yield client


def states(client, model):
    """The identities and states of all controls of a kind."""
    every = client.widget_state.items()
    return {name: state for name, state in every if state.get("_model_name") == model}


def move(client, identity, **state):
    """Change a control as a browser does; returns the texts that the kernel then shows."""
    data = {"method": "update", "state": state, "buffer_paths": []}
    message = client.kc.session.msg("comm_msg", {"comm_id": identity, "data": data})
    client.kc.shell_channel.send(message)
    texts = []
    while True:
        told = run_sync(client.kc.iopub_channel.get_msg)(timeout=60)
        if told["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            texts.append(told["content"].get("data", {}).get("text/markdown", ""))
            if told["content"].get("execution_state") == "idle":
                return "".join(texts)


def tell(client, code):
    """Execute a line in the kernel; returns what it prints."""
    cell = nbformat.v4.new_code_cell(code)
    client.nb.cells.append(cell)
    done = client.execute_cell(cell, len(client.nb.cells) - 1)
    return "".join(output.get("text", "") for output in done.outputs)


def test_the_explorer_answers_when_its_slider_is_moved(lab):
    (slider, state), *_ = states(lab, "IntSliderModel").items()
    other = 0 if state["value"] else state["max"]
    said = move(lab, slider, value=other)
    assert tell(lab, "print(controls['retrieved'].value)").strip() == str(other)
    assert " synthetic images more: " in said
    assert f"Seen at {other} retrieved" in said


def test_a_prediction_is_kept_by_the_kernel(lab):
    (buttons, state), *_ = states(lab, "RadioButtonsModel").items()
    move(lab, buttons, index=1)
    option = state["_options_labels"][1]
    assert tell(lab, "print(prediction.value)").strip() == option
    assert f"You predicted *{option}*" in tell(lab, "print(report.settle(prediction, 'x').data)")
