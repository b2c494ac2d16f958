include $(sort $(wildcard $(BR2_EXTERNAL_WANTASTIC_PATH)/package/*/*.mk))
