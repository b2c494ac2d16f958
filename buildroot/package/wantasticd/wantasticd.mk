################################################################################
#
# wantasticd
#
################################################################################

WANTASTICD_VERSION = 0.1.0
WANTASTICD_SITE = $(BR2_EXTERNAL_WANTASTIC_PATH)/..
WANTASTICD_SITE_METHOD = local
WANTASTICD_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude build --exclude dist --exclude .venv --exclude '*.so'
WANTASTICD_LICENSE = \
	Apache-2.0, PSF-2.0 (Python), Apache-2.0 (OpenSSL, grpcio), \
	BSD-3-Clause (protobuf, grpclib), BSD-2-Clause (pycryptodome), \
	MIT (h2, hpack, hyperframe), Zlib (zlib), \
	AGPL-3.0 with Nuitka-runtime-exception (Nuitka run-time library)
WANTASTICD_LICENSE_FILES = LICENSE
WANTASTICD_DEPENDENCIES = \
	host-protobuf host-python3 host-python-cython host-python-pip \
	host-python-setuptools

WANTASTICD_ARCH = $(call qstrip,$(or \
	$(if $(BR2_x86_64),x86_64), \
	$(if $(BR2_aarch64),aarch64), \
	$(if $(BR2_arm),armv7), \
	$(if $(BR2_mips),mips), \
	$(if $(BR2_mipsel),mipsel)))
WANTASTICD_TRANSPORT = $(if $(BR2_PACKAGE_WANTASTICD_GRPCIO),grpcio,slim)
WANTASTICD_FEATURES = $(call qstrip,$(BR2_PACKAGE_WANTASTICD_FEATURES))

# Sources that are pinned by hash are kept with Buildroot's other downloads, and
# built once for each set of inputs.
WANTASTICD_BUILD_ENV = \
	$(HOST_MAKE_ENV) \
	WANTASTIC_SOURCES=$(WANTASTICD_DL_DIR) \
	WANTASTIC_CACHE=$(WANTASTICD_DL_DIR)/cache

ifeq ($(BR2_PACKAGE_WANTASTICD_BUILDROOT_CC),y)
WANTASTICD_BUILD_ENV += \
	CC="$(TARGET_CC) $(TARGET_ABI)" \
	CXX="$(TARGET_CXX) $(TARGET_ABI)" \
	AR="$(TARGET_AR)" \
	RANLIB="$(TARGET_RANLIB)"
endif

define WANTASTICD_BUILD_CMDS
	cd $(@D) && $(WANTASTICD_BUILD_ENV) \
		$(HOST_DIR)/bin/python3 -m buildroot.static --jobs $(PARALLEL_JOBS) binary \
		--arch $(WANTASTICD_ARCH) --transport $(WANTASTICD_TRANSPORT) \
		$(if $(WANTASTICD_FEATURES),--features=$(WANTASTICD_FEATURES)) \
		--output $(@D)/dist
endef

define WANTASTICD_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 \
		$(@D)/dist/wantasticd-$(WANTASTICD_ARCH)-$(WANTASTICD_TRANSPORT) \
		$(TARGET_DIR)/usr/sbin/wantasticd
	$(INSTALL) -d -m 0700 $(TARGET_DIR)/etc/wantastic
	$(INSTALL) -d -m 0700 $(TARGET_DIR)/var/lib/wantastic
	$(WANTASTICD_INSTALL_CONFIG)
endef

WANTASTICD_CONFIG = $(call qstrip,$(BR2_PACKAGE_WANTASTICD_CONFIG))
ifneq ($(WANTASTICD_CONFIG),)
define WANTASTICD_INSTALL_CONFIG
	$(INSTALL) -D -m 0600 $(WANTASTICD_CONFIG) \
		$(TARGET_DIR)/etc/wantastic/config.json
endef
endif

define WANTASTICD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 \
		$(BR2_EXTERNAL_WANTASTIC_PATH)/package/wantasticd/S60wantasticd \
		$(TARGET_DIR)/etc/init.d/S60wantasticd
endef

define WANTASTICD_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 \
		$(BR2_EXTERNAL_WANTASTIC_PATH)/package/wantasticd/wantasticd.service \
		$(TARGET_DIR)/usr/lib/systemd/system/wantasticd.service
endef

define WANTASTICD_PERMISSIONS
	/etc/wantastic d 700 root root - - - - -
	/var/lib/wantastic d 700 root root - - - - -
endef

ifeq ($(BR2_PACKAGE_WANTASTICD_TUN),y)
define WANTASTICD_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_TUN)
endef
endif

$(eval $(generic-package))
