//! The TD HOB list, from the firmware's sections and the machine's memory.
