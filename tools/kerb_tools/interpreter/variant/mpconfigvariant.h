// The host variant of MicroPython on which Kerbstone's firmware is tested: as near to the ESP32
// port as a Unix process comes. What the ESP32 has and this lacks is said in docs/testing.md.

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)

// The ESP32 port has 32-bit floats (ports/esp32/mpconfigport.h).
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_FLOAT)

// On a 32-bit port ticks wrap at 2^30 ms, 12.4 days; here the count starts shortly before that,
// so every process that lives a few seconds sees a wrap.
#define MICROPY_PY_TIME_TICKS_PERIOD (1 << 30)
unsigned long kerb_ticks_ms(void);
unsigned long kerb_ticks_us(void);
#define mp_hal_ticks_ms kerb_ticks_ms
#define mp_hal_ticks_us kerb_ticks_us

// As on the port: os.dupterm for a second console.
#define MICROPY_PY_OS_DUPTERM (1)

// AES-ECB from mbedtls, as on the port, without the rest of TLS.
#define MICROPY_PY_CRYPTOLIB (1)
#define MICROPY_PY_HASHLIB_MD5 (0)
#define MICROPY_PY_HASHLIB_SHA1 (0)

#include "variants/mpconfigvariant_common.h"

// As on the port: Ctrl-C is raised between two bytecodes, never in the middle of an allocation.
#undef MICROPY_ASYNC_KBD_INTR
#define MICROPY_ASYNC_KBD_INTR (0)
