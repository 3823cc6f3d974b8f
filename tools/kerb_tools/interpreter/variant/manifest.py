# asyncio is frozen into a stock ESP32 image too.
include("$(MPY_DIR)/extmod/asyncio")
