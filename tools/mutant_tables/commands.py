"""What is broken in commands and their results."""

from __future__ import annotations

from mutant_tables.mutant import Mutant
from mutant_tables.places import COMMANDS, GROUP_COMMANDS, REGRESSIONS, STREET

# fmt: off
MUTANTS = [
    Mutant("command number reused", "gateway/kerb_gateway/commands.py",
           "self._next_no = rows[0][0] + 1", "self._next_no = max(1, rows[0][0])", COMMANDS),
    Mutant("repeated command taken again", "gateway/kerb_gateway/commands.py",
           "        return bool(rows)", "        return False", COMMANDS),
    Mutant("street: a silent lamp is given up at once", "gateway/kerb_gateway/commands.py",
           "if self._clock.boottime_ms() < command.expires_ms + settle_ms:", "if False:",
           f"{STREET}::test_bus_units_that_answer_late_garble_and_die"),
    Mutant("street: a repeated command is taken again", "gateway/kerb_gateway/commands.py",
           "        return bool(rows)", "        return False",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("street: a malformed command gets no result", "gateway/kerb_gateway/commands.py",
           "        except Malformed as error:\n            await self._refuse(node_id, error)\n",
           "        except Malformed:\n",
           f"{STREET}::test_hostile_adverts_two_adapters_and_bad_commands"),
    Mutant("fuzz: half a surrogate is stored", "gateway/kerb_gateway/commandmessage.py",
           "or not is_text(command_id)", "or False", REGRESSIONS),
    Mutant("fuzz: an unknown outcome is looked up", "gateway/kerb_gateway/commands.py",
           'if status["command_outcome"] > _LAST_RESULT:', "if False:", REGRESSIONS),
    Mutant("an old null stays a null", "gateway/kerb_gateway/commands.py",
           "FADE_DEFAULT_MS if row[3] is None else row[3]", "row[3]",
           f"{COMMANDS}::test_a_fade_that_an_old_release_stored_as_null_is_the_usual_one"),
    Mutant("an unowned command outlives itself", "gateway/kerb_gateway/groupcommands.py",
           "mine.append((message, now_ms >= until_ms))", "mine.append((message, False))",
           GROUP_COMMANDS),
    Mutant("a command of another gateway is answered", "gateway/kerb_gateway/groupcommands.py",
           "return place != ELSEWHERE", "return True", GROUP_COMMANDS),
    Mutant("what is about to be sent is superseded", "gateway/kerb_gateway/commands.py",
           "one.node is node and not one.sent]", "one.node is node]",
           f"{COMMANDS}::test_what_is_about_to_be_sent_is_not_superseded"),
    Mutant("what is no result becomes one", "gateway/kerb_gateway/commands.py",
           'OUTCOMES.index("refused")', 'OUTCOMES.index("repeated")',
           f"{COMMANDS}::test_what_is_no_result_does_not_become_one"),
    Mutant("what another boot sent has one try", "gateway/kerb_gateway/commands.py",
           "if same_boot else self._clock.boottime_ms()", "if same_boot else 0",
           f"{COMMANDS}::test_what_another_boot_sent_is_asked_for_until_the_lamp_answers"),
    Mutant("commands of a removed lamp stay open", "gateway/kerb_gateway/commands.py",
           "        self._end_removed()\n", "        pass\n",
           f"{COMMANDS}::test_commands_of_a_lamp_that_was_taken_away_have_their_result"),
    Mutant("command numbers return with a restore", "gateway/kerb_gateway/commands.py",
           "            self._next_no = max(self._next_no, int(floor[0][0]) + 1)\n",
           "            pass\n",
           f"{COMMANDS}::test_what_was_open_in_a_restored_backup_is_settled_and_never_applied"),
]
