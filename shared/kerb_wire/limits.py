"""The bounds that both sides keep; every queue and size of the wire is stated here.

Rule: a number that two files share is written once, with its unit at the end of its name.
"""

SEQ_MAX = 0xFFFFFFFF  # a u32 that only rises; 136 years at one reading a second
SEQ_BLOCK = 256  # numbers reserved in NVS at a time, before their use
JUMP_LIMIT = 4096  # a live counter further ahead than this is quarantined, not believed

FRAME_PAYLOAD_MAX_BYTES = 512  # largest payload of one frame, before COBS and CRC
BACKFILL_MAX_RECORDS = 64  # largest range one backfill request may ask for
ANSWER_MAX_RECORDS = 6  # records in one backfill answer: fits a 247-byte ATT MTU
FILE_READ_MAX_RECORDS = 10  # records in one Modbus file read: 240 of at most 250 bytes
BUNDLE_MAX_RECORDS = 8  # records in one sealed MQTT message of a Wi-Fi node

ADVERT_MAX_BYTES = 31  # legacy advertising data, Bluetooth Core 5.4 Vol 6 Part B 2.3.1.1
ADVERT_OBJECTS_MAX_BYTES = 15  # what flags, service data header, counter and MIC leave of it

GREETING_TIMEOUT_MS = 3000  # a GATT peer's way to its first byte: it discovers services first
AUTH_TIMEOUT_MS = 1000  # from its first byte on: who has not proved himself by then is dropped
SESSION_TIMEOUT_MS = 8000  # a whole GATT session may not last longer
SITE_MAX_BYTES = 24  # the site's name in a provisioning blob
