# Small and quick to build: no TLS, no ffi, no btree; AES and SHA-256 come from mbedtls' library/.
FROZEN_MANIFEST ?= $(VARIANT_DIR)/manifest.py
MICROPY_PY_SSL = 0
MICROPY_SSL_MBEDTLS = 0
MICROPY_PY_FFI = 0
MICROPY_PY_BTREE = 0
MICROPY_VFS_LFS1 = 0

KERB_MBEDTLS = lib/mbedtls
CFLAGS_EXTMOD += -DMICROPY_SSL_MBEDTLS=1 -I$(TOP)/$(KERB_MBEDTLS)/include
CFLAGS_EXTMOD += -DMBEDTLS_CONFIG_FILE='"kerb_mbedtls_config.h"'
SRC_THIRDPARTY_C += $(addprefix $(KERB_MBEDTLS)/library/,\
	aes.c \
	constant_time.c \
	platform_util.c \
	sha256.c \
	)
