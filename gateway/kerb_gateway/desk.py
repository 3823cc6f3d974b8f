"""The operator's desk: what each request of the control socket does.

Rule: no I/O of its own but through the store; requests that change something are taken one after
the other, and are answered when their commit is on disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kerb_gateway.backups import Backups
from kerb_gateway.service.protocol import (
    LETTERS_MAX,
    NUMBER_MAX,
    Backup,
    BackupState,
    BadRequest,
    DropLetters,
    ListLetters,
    ReplayLetters,
    ReplayRows,
    ReplayState,
    Request,
    Status,
)
from kerb_gateway.store.letters import Letter, Letters, described
from kerb_gateway.store.replays import Replays

Commit = Callable[[], Awaitable[None]]


class Desk:
    """Answers requests; one for a running gateway, one for a command line that has the file."""

    def __init__(
        self,
        letters: Letters,
        replays: Replays,
        commit: Commit,
        situation: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        backups: Backups | None = None,
    ) -> None:
        """situation: how the gateway is, backups: who makes them; None where none runs."""
        self._situation = situation
        self._backups = backups
        self._letters = letters
        self._replays = replays
        self._commit = commit
        self._turn = letters.turn

    async def answer(self, request: Request, who: str) -> dict[str, Any]:
        """Return the answer's fields; BadRequest says why there is none."""
        match request:
            case ListLetters():
                return await self._list(request)
            case ReplayLetters():
                async with self._turn:
                    return await self._replay_letters(request, who)
            case DropLetters():
                async with self._turn:
                    return await self._drop_letters(request, who)
            case ReplayRows():
                async with self._turn:
                    return await self._replay_rows(request)
            case ReplayState():
                return await self._replay_state(request)
            case Backup() if self._backups is not None:
                return self._backups.begin(Path(request.file), who)
            case BackupState() if self._backups is not None:
                return self._backups.state()
            case Status() if self._situation is not None:
                return await self._situation()
        raise BadRequest("only a running gateway can answer that")

    async def _list(self, request: ListLetters) -> dict[str, Any]:
        letters = await self._letters.between(request.after, NUMBER_MAX, LETTERS_MAX)
        return {
            "letters": [described(letter) for letter in letters],
            "count": await self._letters.count(),
            "last_no": await self._letters.last_no(),
        }

    async def _replay_letters(self, request: ReplayLetters, who: str) -> dict[str, Any]:
        if (request.numbers is None) == (request.up_to is None):
            raise BadRequest("either numbers or up_to")
        await self._commit()  # what somebody gave up, but found no room to store
        if request.numbers is None:
            letters = await self._letters.between(0, request.up_to or 0, LETTERS_MAX)
        else:
            letters = await self._all_of(request.numbers)
        replayed = {str(one.outbox_no): self._letters.replay(one, who) for one in letters}
        await self._commit()
        return {"replayed": replayed}

    async def _drop_letters(self, request: DropLetters, who: str) -> dict[str, Any]:
        await self._commit()  # as above
        letters = await self._all_of(request.numbers)
        for letter in letters:
            self._letters.drop(letter, who, request.why)
        await self._commit()
        return {"dropped": [letter.outbox_no for letter in letters]}

    async def _replay_rows(self, request: ReplayRows) -> dict[str, Any]:
        why = await self._replays.why_not(request.first, request.last)
        if why is not None:
            raise BadRequest(why)
        command_id = f"local-{secrets.token_hex(8)}"
        replay_no = await self._replays.accept(command_id, request.first, request.last)
        await self._commit()
        self._replays.stored.set()
        return {"replay_no": replay_no, "command_id": command_id}

    async def _replay_state(self, request: ReplayState) -> dict[str, Any]:
        state = await self._replays.state(request.replay_no)
        if state is None:
            raise BadRequest(f"{request.replay_no}: no such replay")
        return state

    async def _all_of(self, numbers: list[int]) -> list[Letter]:
        """Return these letters; BadRequest if one is not there, and nothing is done then."""
        letters = await self._letters.named(numbers)
        missing = sorted(set(numbers) - {letter.outbox_no for letter in letters})
        if missing:
            ended = await self._letters.ended(missing)
            raise BadRequest(
                "; ".join(f"{number}: {_why_not(ended.get(number))}" for number in missing)
            )
        return letters


def _why_not(ended: str | None) -> str:
    return "no such dead letter" if ended is None else f"was {ended} already"
