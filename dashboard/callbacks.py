"""Dash callbacks that never block the event loop and never take the page down.

Dash on FastAPI runs a plain function on the event loop itself. So every callback is registered here as a coroutine that
does its work in the thread pool. When it raises, the slot for problems on the page says what failed and what to do, and
whatever was on the page stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from dash import ClientsideFunction, Dash, no_update
from dash.exceptions import PreventUpdate

from dashboard.elements import problem
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)


class Callbacks:
    """Registers callbacks on one Dash app."""

    def __init__(self, app: Dash) -> None:
        self._app = app

    def server(
        self,
        function: Callable[..., Any],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        state: Sequence[Any] = (),
        *,
        problems: Any,
        initial: bool | str = True,
    ) -> None:
        """Call ``function(*inputs, *state)`` in the thread pool; it returns one value per output.

        ``problems`` is the Output of the element that shows what went wrong; it is emptied after a success.
        """
        width = len(outputs)

        async def run(*values: Any) -> tuple[Any, ...]:
            try:
                result = await asyncio.to_thread(function, *values)
                results = (result,) if width == 1 else tuple(result)
                if len(results) != width:
                    # Dash would answer 500 without a word in the log.
                    raise TypeError(f"{len(results)} values for {width} outputs")
            except PreventUpdate:
                raise
            except ServelensError as error:
                logger.warning("page failed: callback=%s error=%s", function.__qualname__, error)
                return (*(no_update,) * width, problem(error.message, error.fix, error.field))
            except Exception:
                # Whatever it is, the page must stay alive and the log must have the traceback.
                logger.exception("page failed: callback=%s", function.__qualname__)
                return (
                    *(no_update,) * width,
                    problem(
                        "Something went wrong on the server.", "The console's log has the details.", None
                    ),
                )
            return (*results, None)

        self._app.callback(
            [*outputs, problems],
            list(inputs),
            list(state),
            prevent_initial_call=initial if isinstance(initial, str) else not initial,
        )(run)

    def browser(
        self,
        function: str,
        outputs: Sequence[Any] | Any,
        inputs: Sequence[Any],
        state: Sequence[Any] = (),
        *,
        initial: bool | str = True,
    ) -> None:
        """Call ``window.dash_clientside.servelens.<function>`` in the browser (``assets/*.js``)."""
        self._app.clientside_callback(
            ClientsideFunction("servelens", function),
            outputs,
            list(inputs),
            list(state),
            prevent_initial_call=not initial,
        )
