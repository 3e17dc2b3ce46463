"""The command that opens a page to explore a run."""

from __future__ import annotations

from expost.commands.arguments import RunLike
from expost.commands.groups import takes
from expost.errors import UsageError
from expost.utils.extras import installed, missing


@takes()
def explore(
    run: RunLike,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
    examples: int = 10_000,
    max_upload: float = 5.0,
    device: str = "auto",
) -> None:
    """Explore a run on a local web page: latent space, samples, reconstructions, paths, neighbours. Ctrl-C ends it.

    The page loads nothing from the network and reports nothing to anyone. Uploads and results are held in memory.

    Args:
        run: The run.
        host: Address to listen on; default: reachable from this machine only. At another address, anyone who can reach
            it can use the page, which asks for no password.
        port: Port to listen on, 0 for any that is free; default: the first free one from 7860.
        browser: The page is opened in a browser, unless --no-browser is given.
        examples: Most training examples to draw and compare with.
        max_upload: Largest upload, in MB.
        device: auto, cpu, cuda or mps.

    Raises:
        UsageError: if the extra for it is not installed, or an option is out of its range.
    """
    if not installed("gradio"):  # which takes seconds to import, after what can be refused at once
        raise missing("explorer", "the page needs Gradio")
    if examples < 2:
        raise UsageError(f"examples is {examples}; give at least 2")
    if not 0 < max_upload <= 1_000:
        raise UsageError(f"max-upload is {max_upload:g}; give MB, above 0 and at most 1000")
    from expost.run import open_run

    opened = open_run(run)
    from expost.explorer.serving import serve  # Gradio takes seconds to import

    serve(opened, host, port, browser, examples, int(max_upload * 1e6), device)
