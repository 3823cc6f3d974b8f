"""The air: adverts and GATT between virtual boards and an emulated org.bluez."""
