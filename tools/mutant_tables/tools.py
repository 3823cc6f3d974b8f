"""What is broken in the checker, the simulator and the tools."""

from __future__ import annotations

from mutant_tables.mutant import Mutant

# fmt: off
MUTANTS = [
    Mutant("a dying board falls asleep", "tools/kerb_sim/board/virtual.py",
           "return chip is not None and self._chip is chip", "return self._chip is chip",
           "tools/tests/test_board_power.py"
           "::test_what_a_board_says_while_it_dies_is_said_by_nobody"),
    Mutant("checker misses a hidden lamp fault", "tools/kerb_check/lampfaults.py",
           "        if not reported and _visible", "        if False and _visible",
           "tools/tests/test_checker.py"),
    Mutant("checker believes a tail that stands", "tools/kerb_check/takenback.py",
           "        *_not_closed(delivered, unique),\n", "", "tools/tests/test_checker.py"),
    Mutant("checker hides numbers behind a closed tail", "tools/kerb_check/takenback.py",
           "        if not loss.id or not (loss.id in gone or _is_over(loss, delivered))\n", "",
           "tools/tests/test_checker.py"),
    Mutant("checker trusts repeated content", "tools/kerb_check/readings.py",
           "    changed = differences(before.content, reading.content, times=times)\n",
           "    changed = []\n", "tools/tests/test_checker.py"),
    Mutant("checker trusts the clock of a slow machine", "tools/kerb_check/alignment.py",
           "    if burst.counter is not None:\n", "    if False:\n",
           "tools/tests/test_checker.py"),
    Mutant("files of an older tree stay", "tools/kerb_tools/flash.py",
           "elif path not in wanted:", "elif False:",
           "tools/tests/test_board_console.py::test_an_old_tree_is_replaced_and_the_log_stays"),
    Mutant("an image takes a node's identity", "tools/kerb_tools/flash.py",
           "if options.node is None and not options.image_only:", "if False:",
           "tools/tests/test_technician.py"
           "::test_an_image_that_would_leave_a_board_without_identity_is_refused"),
    Mutant("a soft reset ends the watchdog", "tools/kerb_sim/board/virtual.py",
           'await self._stop("off", watched=True)', 'await self._stop("off")',
           "tools/tests/test_board_console.py::test_ctrl_c_leaves_a_watchdog_behind"),
    Mutant("checker trusts the stated times", "tools/kerb_check/times.py",
           "    if before or after:", "    if before and after:", "tools/tests/test_checker.py"),
    Mutant("fuzz: interpreters that disagree", "tools/kerb_tools/fuzz/differential.py",
           "if said != mine:", "if False:",
           "tools/tests/test_fuzz.py::test_interpreters_that_disagree_or_die_are_found"),
    Mutant("faults: processes outlive their campaign", "tools/kerb_tools/faults/tether.py",
           "            _kill(pid)", "            return os._exit(1)",
           "tools/tests/test_fault_streets.py::test_no_process_outlives_the_campaign"),
    Mutant("faults: the pool ends a worker at once", "tools/kerb_tools/faults/tether.py",
           "signal.signal(signal.SIGTERM, lambda *_: None)", "pass",
           "tools/tests/test_fault_streets.py::test_the_pool_ends_no_worker_before_what_it_started"),
    Mutant("faults: a folder outlives its campaign", "tools/kerb_tools/faults/tether.py",
           "    scratch.remove_all()\n", "",
           "tools/tests/test_fault_streets.py::test_no_process_outlives_the_campaign"),
    Mutant("faults: orphans are init's", "tools/kerb_tools/faults/tether.py",
           "if libc.prctl(_SUBREAPER, 1, 0, 0, 0):", "if 0:",
           "tools/tests/test_fault_streets.py::test_an_orphan_of_a_job_ends_too"),
    Mutant("checker forgives a living gateway", "tools/kerb_check/readings.py",
           "if arrived is None and (gone or", "if arrived is None and (True or",
           "tools/tests/test_checker_group.py"),
    Mutant("faults: a repetition counts as recovery", "tools/kerb_tools/faults/recovery.py",
           "if reading.identity not in seen:", "if True:",
           "tools/tests/test_fault_streets.py"
           "::test_recovery_counts_from_the_fault_to_the_next_new_reading"),
]
