"""The reading log: append-only segments on littlefs, rotated, readable by range.

Rule: append() returns only when the row is durable (the file is closed, littlefs has committed);
what a range cannot give any more is said as a LOST record with its reason.
"""

import os

from kerb_wire import records, segment
from kerb_wire.errors import RemoteFault
from kerb_wire.words import LOSSES, code

_OVERWRITTEN = code(LOSSES, "overwritten")
_UNUSED = code(LOSSES, "unused")
_CRC = code(LOSSES, "crc")
_SUFFIX = ".seg"
_ENOSPC = 28  # of the port's errno table; the file system has no free block


class ReadingLog:
    """Records of one or more epochs in `directory`; at most `segments` files of `rows` rows.

    began: the number of this epoch's first record ever, 0 as long as nobody has noted it.
    """

    def __init__(self, directory, epoch, segments, rows, began=0):
        self._directory = directory
        self._epoch = epoch
        self._segments = segments
        self._rows = rows
        try:
            os.mkdir(directory)
        except OSError:
            pass  # it is there already
        self._numbers = self._list()
        self._began = began

    def _list(self):
        names = [name for name in os.listdir(self._directory) if name.endswith(_SUFFIX)]
        stems = [name[: -len(_SUFFIX)] for name in names]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _path(self, number):
        return f"{self._directory}/{number:08d}{_SUFFIX}"

    def append(self, record):
        """Store a packed 24-byte record; it is on flash when this returns.

        On a full file system the oldest segments make way: a node that cannot store is mute.
        """
        while True:
            try:
                return self._write(record)
            except OSError as error:
                if error.errno != _ENOSPC or len(self._numbers) < 2:
                    raise
            self._remove_oldest()

    def _write(self, record):
        row = segment.pack_row(record)
        newest = self._numbers[-1] if self._numbers else 0
        if newest and self._fits(newest):
            with open(self._path(newest), "ab") as file:
                file.write(row)
            return
        if not newest or not self._is_empty(newest):
            self._make_room()
            newest += 1
            self._numbers.append(newest)
        self._begin(newest, segment.pack_header(self._epoch, records.seq_of(record)) + row)

    def _begin(self, number, content):
        """Write the newest segment's file; if that fails, nothing of it stays behind."""
        try:
            with open(self._path(number), "wb") as file:
                file.write(content)
        except OSError:
            self._numbers.pop()
            try:
                os.remove(self._path(number))
            except OSError:
                pass  # it was not even made; an empty one is written anew
            raise

    def _is_empty(self, number):
        """Tell whether the power went before a segment's first row: it may be written anew."""
        return os.stat(self._path(number))[6] < segment.HEADER_BYTES + segment.ROW_BYTES

    def _fits(self, number):
        """Tell whether the newest segment takes one more row of this epoch."""
        rows_bytes = os.stat(self._path(number))[6] - segment.HEADER_BYTES
        if rows_bytes < 0 or rows_bytes % segment.ROW_BYTES:
            return False  # a torn row: leave it, begin anew
        if rows_bytes >= self._rows * segment.ROW_BYTES:
            return False
        header = self._header(number)
        return header is not None and header.epoch == self._epoch

    def _make_room(self):
        while len(self._numbers) >= self._segments:
            self._remove_oldest()

    def _remove_oldest(self):
        os.remove(self._path(self._numbers[0]))
        self._numbers.pop(0)

    def _header(self, number):
        with open(self._path(number), "rb") as file:
            try:
                return segment.unpack_header(file.read(segment.HEADER_BYTES))
            except RemoteFault:
                return None

    def first_seq(self):
        """Return the oldest number of this epoch that is on flash; 0: there is none."""
        for number in self._numbers:
            header = self._header(number)
            if header is not None and header.epoch == self._epoch:
                return header.first_seq
        return 0

    def began(self):
        """Return the number of this epoch's first record ever; 0: it cannot be told."""
        if self._began:
            return self._began
        # As long as the very first file is there, nothing was ever removed.
        return self.first_seq() if self._numbers and self._numbers[0] == 1 else 0

    def last_record(self):
        """Return the newest whole record (24 bytes) of this epoch, or None."""
        for number in reversed(self._numbers):
            header = self._header(number)
            if header is None or header.epoch != self._epoch:
                continue
            newest = None
            for record in self._rows_of(number):
                newest = record or newest
            if newest:
                return newest
        return None

    def _rows_of(self, number):
        """Yield each row's record, or None for a damaged one; a torn last row ends it."""
        with open(self._path(number), "rb") as file:
            file.seek(segment.HEADER_BYTES)
            while True:
                row = file.read(segment.ROW_BYTES)
                if len(row) < segment.ROW_BYTES:
                    return
                try:
                    yield segment.unpack_row(row)
                except RemoteFault:
                    yield None

    def read(self, epoch, first_seq, last_seq):
        """Yield packed records for first_seq..last_seq in order, LOST records for what is gone.

        The caller bounds the range; numbers above the newest row count as unused.
        """
        want = first_seq
        began = self.began() if epoch == self._epoch else 0
        if want < began:
            want = min(began, last_seq + 1)
            yield records.pack_lost(first_seq, want - 1, _UNUSED)
        files = self._files_of(epoch)
        missing = self._before(files)
        for record in self._rows_from(files, first_seq):
            if record is None:
                missing = _CRC
                continue
            seq = records.seq_of(record)
            if seq > last_seq:
                break
            if seq >= want:
                if seq > want:
                    yield records.pack_lost(want, seq - 1, missing)
                yield record
                want = seq + 1
            missing = _UNUSED  # rows ascend without holes, but for numbers that no row ever had
        if want <= last_seq:
            yield records.pack_lost(want, last_seq, missing)

    def _files_of(self, epoch):
        """Return [(file number, first seq)] of an epoch, oldest first; first seq None: damaged.

        A file whose header is damaged may be anybody's, so it stands in every epoch's list.
        """
        found = []
        for number in self._numbers:
            header = self._header(number)
            if header is None:
                found.append((number, None))
            elif header.epoch == epoch:
                found.append((number, header.first_seq))
        return found

    def _before(self, files):
        """Return why numbers before the first of an epoch's files are not there."""
        # Behind another epoch's file nothing of this epoch was ever removed. Else say the worse:
        # "unused" is only said of what is known to have carried no reading.
        if files and files[0][0] != self._numbers[0]:
            return _UNUSED
        return _OVERWRITTEN

    def _rows_from(self, files, seq):
        """Yield the records of `files` from the one that may hold `seq` on; None for damage."""
        start = 0
        for index in range(len(files)):
            first = files[index][1]
            if first is not None and first <= seq:
                start = index
        for number, first in files[start:]:
            if first is None:
                yield None
                continue
            for record in self._rows_of(number):
                yield record
